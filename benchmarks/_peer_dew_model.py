"""Dew's `Unet` at the common shapes, and conditions that arrive encoded; imports Dew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from _peer_shapes import HEAD_CHANNELS, Shapes
from dew.inputs import Condition, ConditionEncoder
from dew.nn.attention import Stage
from dew.nn.backbones.unet import Unet
from dew.nn.dit import TextContext
from flax import linen as nn

from imagen_jax.train.sharded_step import CHANNELS


class Enlarger(nn.Module):
    """A `Unet` that reads a low-resolution image beside the noisy one, as channels."""

    unet: Unet

    def __call__(
        self,
        x: Any,
        temb: Any,
        textcontext: Any = None,
        low_res: Any = None,
        train: bool = False,
    ) -> Any:
        factor = x.shape[1] // low_res.shape[1]
        enlarged = jnp.repeat(jnp.repeat(low_res, factor, axis=1), factor, axis=2)
        return self.unet(jnp.concatenate([x, enlarged], axis=-1), temb, textcontext, train=train)


class Given(ConditionEncoder):
    """A condition that is encoded already: zeros stand for none."""

    reads_captions = False

    def __init__(self, *shape: int, text: bool) -> None:
        self.shape, self.text, self.params = shape, text, {}

    @classmethod
    def from_pretrained(cls, checkpoint: str, *, params: Any = None) -> Given:
        raise NotImplementedError("nothing is stored")

    def to_json(self) -> dict:
        return {}

    def tokenize(self, texts: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {"value": np.zeros((len(texts), *self.shape), np.float32)}

    def encode(self, params: Any, tokens: Any) -> Any:
        value = jnp.asarray(tokens["value"])
        if not self.text:
            return value
        return TextContext(hidden=value, mask=jnp.ones(value.shape[:2], jnp.int32))


def network(shapes: Shapes) -> nn.Module:
    """With its default attention, which reads the text alone, where the others attend."""
    widths = [shapes.channels * mult for mult in shapes.channel_mult]
    unet = Unet(
        output_channels=CHANNELS,
        emb_features=4 * shapes.channels,
        feature_depths=widths,
        attention_configs=[
            Stage(heads=width // HEAD_CHANNELS) if on else None
            for width, on in zip(widths, shapes.attends, strict=True)
        ],
        num_res_blocks=shapes.res_blocks,
    )
    return unet if shapes.low_size is None else Enlarger(unet)


def conditions(shapes: Shapes) -> dict[str, Condition]:
    """By the keyword that the network takes each under."""
    text = Given(shapes.text_length, shapes.text_width, text=True)
    found = {"textcontext": Condition(text, "text")}
    if shapes.low_size is not None:
        low = Given(shapes.low_size, shapes.low_size, CHANNELS, text=False)
        found["low_res"] = Condition(low, "low_res")
    return found


def batch(shapes: Shapes) -> dict[str, Any]:
    """Random images and conditions."""
    draw, size = np.random.default_rng(0), (shapes.batch, shapes.size, shapes.size, CHANNELS)
    given = {
        condition.field: {
            "value": draw.normal(size=(shapes.batch, *condition.encoder.shape)).astype(np.float32)
        }
        for condition in conditions(shapes).values()
    }
    return {"image": draw.integers(0, 256, size).astype(np.uint8), **given}
