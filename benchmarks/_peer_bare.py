"""Speed of the processor itself: a matrix product and a convolution on their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from _peer_shapes import Shapes, Work

from imagen_jax.parallel import flops

SIDE = 1024
REPEATS = 20  # of a turn, which is too short to time otherwise
FEATURES = (4, 32, 32, 128)


def product(shapes: Shapes) -> Work:
    """A 1,024 x 1,024 by 1,024 matrix product in float32."""
    matrix = jnp.ones((SIDE, SIDE))
    return _repeated(jnp.matmul, matrix, matrix)


def convolution(shapes: Shapes) -> Work:
    """A 3x3 convolution, its gradients left out."""
    channels = FEATURES[-1]

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    return _repeated(convolve, jnp.ones(FEATURES), jnp.ones((3, 3, channels, channels)))


def _repeated(function: Callable[..., jax.Array], *arguments: Any) -> Work:
    compiled = jax.jit(function).lower(*arguments).compile()

    def call() -> None:
        for _ in range(REPEATS):
            compiled(*arguments).block_until_ready()

    return Work(
        parameters=0,
        forward=0.0,
        flops=flops.count_flops(function, *arguments),
        call=call,
        steps=REPEATS,
    )
