"""A convolution whose kernel has a fast gradient on CPUs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LAYOUT = ("NHWC", "HWIO", "NHWC")
NARROW = 16  # input channels: with fewer, products of each tap are no faster

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "y x i o"],
    strides: Any,
    padding: Any,
    *,
    precision: Any = None,
    **_: Any,
) -> Float[Array, "b p q o"]:
    """`jax.lax.conv_general_dilated` as `flax.linen.Conv` calls it, without dilation and groups.

    XLA's CPU compiler makes the gradient of a kernel from transposed arrays, at half the forward
    pass's rate. Tap by tap it is a matrix product of pixels and shifted gradients, which is fast.
    jax has no forward-mode derivative (`jax.jvp`) of a function with a gradient of its own.
    """
    if tuple(strides) != (1, 1) or x.shape[-1] < NARROW:
        return _convolve(x, kernel, strides, padding, precision)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _tapped(x, kernel, tuple(map(tuple, padding)), precision)


def _convolve(x: Any, kernel: Any, strides: Any, padding: Any, precision: Any) -> Any:
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUT, precision=precision
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _tapped(x: Any, kernel: Any, padding: Padding, precision: Any) -> Any:
    return _convolve(x, kernel, (1, 1), padding, precision)


def _forward(x: Any, kernel: Any, padding: Padding, precision: Any) -> Any:
    return _convolve(x, kernel, (1, 1), padding, precision), (x, kernel)


def _backward(padding: Padding, precision: Any, kept: Any, grad: Any) -> Any:
    x, kernel = kept
    convolve_ = functools.partial(_convolve, strides=(1, 1), padding=padding, precision=precision)
    (of_x,) = jax.linear_transpose(lambda x: convolve_(x, kernel), x)(grad)

    def by_convolution(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: convolve_(x, kernel), kernel)(grad)[0]

    def by_taps(x: jax.Array, grad: jax.Array) -> jax.Array:
        (_, height, width, _), (rows, columns, *channels) = x.shape, kernel.shape
        sides = zip((rows, columns), padding, strict=True)
        edges = [(taps - 1 - low, taps - 1 - high) for taps, (low, high) in sides]
        padded = jnp.pad(grad, ((0, 0), *edges, (0, 0)))
        taps = [
            jnp.einsum(
                "bhwi,bhwo->io", x, padded[:, a : a + height, c : c + width], precision=precision
            )
            for a in reversed(range(rows))
            for c in reversed(range(columns))
        ]
        return jnp.stack(taps).reshape(rows, columns, *channels)

    return of_x, jax.lax.platform_dependent(x, grad, cpu=by_taps, default=by_convolution)


_tapped.defvjp(_forward, _backward)
