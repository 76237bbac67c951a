"""A convolution that is fast on CPUs, as are its gradients."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from imagen_jax.models import winograd
from imagen_jax.models.winograd import LAYOUT, Padding

NARROW = 16  # input channels: with fewer, products of each tap are no faster
WIDE = 32  # channels in and out: with fewer, Winograd's transforms cost what they save
SMALL = 64  # pixels of an image: with fewer, a tile is no small part of a row
LARGE = 1536  # weights of a tap by pixels: with more, so do transforms of the kernel


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

    On CPUs a convolution of enough channels and pixels is Winograd's, in float32. XLA's CPU
    compiler makes the gradient of a kernel from transposed arrays, at half the forward pass's rate;
    tap by tap it is a matrix product of pixels and shifted gradients, which is fast.
    jax has no forward-mode derivative (`jax.jvp`) of a function with a gradient of its own.
    """
    if tuple(strides) != (1, 1) or x.shape[-1] < NARROW:
        return _direct(x, kernel, strides, padding, precision)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _tapped(x, kernel, tuple(map(tuple, padding)), precision)


def _direct(x: Any, kernel: Any, strides: Any, padding: Any, precision: Any) -> Any:
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUT, precision=precision
    )


def _suits_winograd(x: Any, kernel: Any, padding: Padding) -> bool:
    """True where fewer products take less time, by shapes of one image: batches round alike."""
    sides, channels = kernel.shape[:2], kernel.shape[2:]
    pixels = x.shape[1] * x.shape[2]
    within = all(
        0 <= edge < taps for taps, edges in zip(sides, padding, strict=True) for edge in edges
    )
    return (
        x.dtype == kernel.dtype == jnp.float32
        and sides[1] in winograd.POINTS
        and within
        and min(channels) >= WIDE
        and pixels >= SMALL
        and math.prod(channels) <= LARGE * pixels
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _tapped(x: Any, kernel: Any, padding: Padding, precision: Any) -> Any:
    return _convolve(x, kernel, padding, precision)


def _convolve(x: Any, kernel: Any, padding: Padding, precision: Any) -> Any:
    direct = functools.partial(_direct, strides=(1, 1), padding=padding, precision=precision)
    if not _suits_winograd(x, kernel, padding):
        return direct(x, kernel)
    fast = functools.partial(winograd.convolve, padding=padding, precision=precision)
    return jax.lax.platform_dependent(x, kernel, cpu=fast, default=direct)


def _forward(x: Any, kernel: Any, padding: Padding, precision: Any) -> Any:
    return _convolve(x, kernel, padding, precision), (x, kernel)


def _backward(padding: Padding, precision: Any, kept: Any, grad: Any) -> Any:
    x, kernel = kept
    direct = functools.partial(_direct, strides=(1, 1), padding=padding, precision=precision)
    on_cpu = {"padding": padding, "precision": precision}

    def of_x(grad: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: direct(x, kernel), x)(grad)[0]

    def of_kernel(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: direct(x, kernel), kernel)(grad)[0]

    suits, sides = _suits_winograd(x, kernel, padding), kernel.shape[:2]
    fast = functools.partial(winograd.image_gradient, **on_cpu)
    of_image = functools.partial(jax.lax.platform_dependent, cpu=fast, default=of_x)
    products = winograd.kernel_gradient if suits else _by_taps
    products = functools.partial(products, sides=sides, **on_cpu)
    return (
        (of_image if suits else of_x)(grad, kernel),
        jax.lax.platform_dependent(x, grad, cpu=products, default=of_kernel),
    )


def _by_taps(
    x: Float[Array, "b h w i"],
    grad: Float[Array, "b p q o"],
    sides: tuple[int, int],
    padding: Padding,
    *,
    precision: Any,
) -> Float[Array, "y x i o"]:
    """The gradient of a kernel of these sides, as a matrix product for each tap."""
    (_, height, width, channels), (rows, columns) = x.shape, sides
    edges = [
        (taps - 1 - low, taps - 1 - high) for taps, (low, high) in zip(sides, padding, strict=True)
    ]
    padded = jnp.pad(grad, ((0, 0), *edges, (0, 0)))
    taps = [
        jnp.einsum(
            "bhwi,bhwo->io", x, padded[:, a : a + height, c : c + width], precision=precision
        )
        for a in reversed(range(rows))
        for c in reversed(range(columns))
    ]
    return jnp.stack(taps).reshape(rows, columns, channels, grad.shape[-1])


_tapped.defvjp(_forward, _backward)
