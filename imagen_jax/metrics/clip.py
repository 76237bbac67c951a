"""CLIP: images and texts to vectors of one space, as pure functions of Hugging Face's weights.

Source: arXiv:2103.00020. Layers of a tower are stacked and scanned, so that deep ones compile as
fast as flat ones.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from imagen_jax.metrics.clip_config import Activation, ClipConfig, Tower
from imagen_jax.types import Tokens

EXACT = jax.lax.Precision.HIGHEST  # float32 is float32 on accelerators, too
Weights = Mapping[str, Any]  # by Hugging Face's names; those of all layers stacked under "layers"
States = Float32[Array, "b n d"]


class Style(NamedTuple):
    """Options that the layers of a tower share."""

    tower: Tower
    causal: bool  # whether tokens attend to those before them alone


def embed_images(
    weights: Weights, x: Float32[Array, "b h w 3"], *, config: ClipConfig
) -> Float32[Array, "b d"]:
    """Embeddings of normalised images, of length 1. Shapes: h and w are `config.side`."""
    model, batch = weights["vision_model"], x.shape[0]
    patches = jax.lax.conv_general_dilated(
        x,
        model["embeddings.patch_embedding.weight"],
        (config.patch, config.patch),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=EXACT,
    ).reshape(batch, -1, config.image.width)
    token = model["embeddings.class_embedding"][None, None, :]
    states = jnp.concatenate([jnp.tile(token, (batch, 1, 1)), patches], axis=1)
    states += model["embeddings.position_embedding.weight"][None]
    states = _norm(model, "pre_layrnorm", states, config.image.epsilon)
    states = _layers(model["layers"], states, Style(config.image, causal=False))
    first = _norm(model, "post_layernorm", states[:, :1], config.image.epsilon)[:, 0]
    return _unit(_product(first, weights["visual_projection.weight"]))


def embed_texts(weights: Weights, tokens: Tokens, *, config: ClipConfig) -> Float32[Array, "b d"]:
    """Embeddings of texts, of length 1, read at each one's end.

    Shapes: tokens (b, n) with n at most `config.context`; what follows the end does not count.
    """
    model = weights["text_model"]
    states = model["embeddings.token_embedding.weight"][tokens]
    states += model["embeddings.position_embedding.weight"][None, : tokens.shape[1]]
    states = _layers(model["layers"], states, Style(config.text, causal=True))
    # Configs from before 2023 say 2, and mean the token with the largest number.
    is_end = tokens if config.eos == 2 else (tokens == config.eos).astype(jnp.int32)
    place = jnp.argmax(is_end, axis=1)
    last = jnp.take_along_axis(states, place[:, None, None], axis=1)
    last = _norm(model, "final_layer_norm", last, config.text.epsilon)[:, 0]
    return _unit(_product(last, weights["text_projection.weight"]))


def _layers(stacked: Weights, states: States, style: Style) -> States:
    def step(carried: States, layer: Weights) -> tuple[States, None]:
        return _layer(layer, carried, style), None

    return jax.lax.scan(step, states, stacked)[0]


def _layer(layer: Weights, states: States, style: Style) -> States:
    norm = partial(_norm, layer, epsilon=style.tower.epsilon)
    states = states + _attend(layer, norm("layer_norm1", states), style)
    hidden = _ACTIVATIONS[style.tower.activation](
        _dense(layer, "mlp.fc1", norm("layer_norm2", states))
    )
    return states + _dense(layer, "mlp.fc2", hidden)


def _attend(layer: Weights, x: States, style: Style) -> States:
    batch, length, width = x.shape
    heads = style.tower.heads
    query, key, value = (
        _dense(layer, f"self_attn.{name}_proj", x)
        .reshape(batch, length, heads, width // heads)
        .transpose(0, 2, 1, 3)
        for name in "qkv"
    )
    logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, precision=EXACT) * (width // heads) ** -0.5
    if style.causal:
        earlier = jnp.tril(jnp.ones((length, length), jnp.bool_))[None, None]
        logits = jnp.where(earlier, logits, -jnp.inf)
    mixed = jnp.einsum("bhqk,bhkd->bqhd", jax.nn.softmax(logits), value, precision=EXACT)
    return _dense(layer, "self_attn.out_proj", mixed.reshape(batch, length, width))


def _dense(weights: Weights, name: str, x: States) -> Float32[Array, "b n o"]:
    product = _product(x, weights[f"{name}.weight"])
    return product + weights[f"{name}.bias"][None, None, :]


def _product(x: Any, kernel: Any) -> Any:
    """A product with a kernel (in, out)."""
    return jnp.matmul(x, kernel, precision=EXACT)


def _norm(weights: Weights, name: str, x: States, epsilon: float) -> States:
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
    scale, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return (x - mean) * jax.lax.rsqrt(variance + epsilon) * scale[None, None] + bias[None, None]


def _unit(x: Float32[Array, "b d"]) -> Float32[Array, "b d"]:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


_ACTIVATIONS: Mapping[Activation, Callable[[States], States]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": partial(jax.nn.gelu, approximate=False),
}
