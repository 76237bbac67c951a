"""Small cascades with random weights, and prompts for them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from small_network import FOLDER

from imagen_jax import config, models
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage

SMALL_BASE, SMALL_SR = (str(FOLDER / f"{name}.py") for name in ("base8", "sr16"))


def make_stage(name: str, *, key: int = 0, **sampler: object) -> TrainedStage:
    """A stage of a config, with another sampler."""
    experiment = config.load(name)[0]
    stage = experiment.stage
    # Of the stage as it is, which is traced once for all samplers.
    shapes = models.parameter_shapes(stage, experiment.text)
    stage = dataclasses.replace(stage, sampler=dataclasses.replace(stage.sampler, **sampler))
    module = models.build(stage.model)
    return TrainedStage(stage=stage, module=module, params=draw_params(shapes, key))


def draw_params(shapes: Any, key: int = 0) -> Any:
    """Arrays of a network: none is zero, as zero-initialised layers would hide what they do.

    They are drawn here, as compiling the initialisers would take most of the time.
    """
    return jax.tree_util.tree_map_with_path(_Draw(np.random.default_rng(key)), shapes)


class _Draw:
    def __init__(self, draw: np.random.Generator) -> None:
        self.draw = draw

    def __call__(self, path: Any, shape: jax.ShapeDtypeStruct) -> jax.Array:
        values = self.draw.standard_normal(shape.shape, np.float32)
        if path[-1].key == "kernel":
            return jnp.asarray(0.5 * values / np.sqrt(np.prod(shape.shape[:-1])))
        return jnp.asarray((path[-1].key == "scale") + 0.05 * values)


def make_prompts(count: int, *, has_text: bool = True) -> SamplerInputs:
    """Random encodings of captions of random lengths."""
    draw = np.random.default_rng(0)
    mask = np.arange(24)[None] < draw.integers(1, 24, count)[:, None]
    text = (draw.standard_normal((count, 24, 64)) * mask[..., None]).astype(np.float32)
    captions = EncodedText(text, mask, np.full(count, has_text))
    return SamplerInputs(captions=captions, indices=np.arange(count, dtype=np.int32))
