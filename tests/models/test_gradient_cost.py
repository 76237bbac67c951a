"""No layer's gradients cost more than their due beside its forward pass, by the compiler's count.

On CPUs a convolution whose kernel is reversed ("rhs_reversal") is a loop without vectors, a hundred
times as slow as the library's: it counts a hundredfold.
"""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from imagen_jax.config import TextConditioning
from imagen_jax.models import attention, efficient_unet, layers, resampling, text_conditioning

LIMIT = 3.5  # times the forward pass; of products alone, dx and dk are twice it
LOOP = 100
PICTURES = jax.ShapeDtypeStruct((2, 8, 8, 64), jnp.float32)
EMBEDDING = jax.ShapeDtypeStruct((2, 64), jnp.float32)
TEXT = jax.ShapeDtypeStruct((2, 16, 64), jnp.float32)
MASK = jax.ShapeDtypeStruct((2, 16), jnp.bool_)
KEYS = jax.ShapeDtypeStruct((2, 16, 2, 32), jnp.float32)
STYLE = layers.BlockStyle(
    norm_groups=8,
    residual_scaling="sum",
    residual_scale=1.0,
    zero_init=False,
    dropout=0.0,
    dtype=jnp.float32,
)
ATTENTION = (2, 32, 8, jnp.float32)
LAYERS: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
    "conv": (layers.conv(64, jnp.float32, name="conv"), (PICTURES,)),
    "conv, stride 2": (layers.conv(64, jnp.float32, stride=2, name="conv"), (PICTURES,)),
    "dense": (nn.Dense(64), (PICTURES,)),
    "of nearest": (resampling.FusedUpsampleConv(64, jnp.float32), (PICTURES,)),
    "of nearest, narrow": (resampling.FusedUpsampleConv(8, jnp.float32), (PICTURES,)),
    "block": (layers.ResBlock(64, STYLE, project=True), (PICTURES, EMBEDDING)),
    "block, down": (layers.ResBlock(64, STYLE, resample="down"), (PICTURES, EMBEDDING)),
    "block, up": (layers.ResBlock(64, STYLE, resample="up"), (PICTURES, EMBEDDING)),
    "upsample": (layers.Upsample(64, "nearest", jnp.float32), (PICTURES,)),
    "depth to space": (layers.Upsample(64, "depth_to_space", jnp.float32), (PICTURES,)),
    "transposed": (layers.Upsample(64, "transposed", jnp.float32), (PICTURES,)),
    "joined": (attention.AttentionBlock(*ATTENTION), (PICTURES, (KEYS, KEYS), MASK)),
    "apart": (
        attention.AttentionBlock(*ATTENTION, joined=False, feed_forward=128),
        (PICTURES, (KEYS, KEYS), MASK),
    ),
    "text": (
        text_conditioning.TextKeysValues(
            text_conditioning.TextLayer("a", 2, 32), norm=True, dtype=jnp.float32
        ),
        (TEXT,),
    ),
    "pool": (text_conditioning.Pool(TextConditioning(), 64, 32), (TEXT, MASK)),
    "refiner": (text_conditioning.RefinerLayer(32), (TEXT, MASK)),
    "merge": (
        efficient_unet.Merge("add", STYLE),
        (PICTURES, jax.ShapeDtypeStruct((2, 8, 8, 32), jnp.float32)),
    ),
}


def _cost(function: Any, *shapes: Any) -> float:
    """Products of a compiled function; those of slow loops many times."""
    compiled = jax.jit(function).lower(*shapes).compile()
    reversed_ = re.findall(r"convolution\(.*rhs_reversal", compiled.as_text())
    return compiled.cost_analysis()["flops"] * (LOOP if reversed_ else 1)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_cost_their_due(name: str) -> None:
    module, arguments = LAYERS[name]
    params = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    inputs = [x for x in jax.tree.leaves(arguments) if x.dtype == jnp.float32]
    tree = jax.tree.structure(arguments)

    def forward(params: Any, inputs: Any) -> Any:
        given = iter(inputs)
        leaves = [
            next(given) if x.dtype == jnp.float32 else jnp.ones(x.shape, x.dtype)
            for x in jax.tree.leaves(arguments)
        ]
        return module.apply(params, *jax.tree.unflatten(tree, leaves))

    def both(params: Any, inputs: Any, gradient: Any) -> Any:
        found, transposed = jax.vjp(forward, params, inputs)
        return found, transposed(gradient)

    result = jax.eval_shape(forward, params, inputs)
    alone = _cost(forward, params, inputs)
    assert _cost(both, params, inputs, result) - alone <= LIMIT * alone
