"""Convolutions with half of the products: Winograd's minimal filtering along rows of pixels.

Four neighbours of a row under a kernel three pixels wide take six products in place of twelve:
F(4, 3) in one dimension, where a product is a convolution one pixel wide. In two dimensions it
would be a quarter of the products, with ten times the rounding error and more memory traffic than
that saves on CPUs. The height stays whole, so that it can be sharded.

Source: Lavin and Gray (arXiv:1509.09308); matrices by Toom's and Cook's construction, from points
like those of Barabasz et al. (arXiv:1803.10986).
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

LAYOUT = ("NHWC", "HWIO", "NHWC")
TILE = 4  # outputs of a row that are computed together
# By the width of the kernel, beside infinity. Rounding errors are three times those of a direct
# convolution; they are four times with the points 0, 1, -1, 2 and -2.
POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1), Fraction(-1, 2)),
    3: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}

Padding = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Transforms:
    """An algorithm for `TILE` outputs: output @ ((kernel @ taps) * (image @ pixels))."""

    image: Float32[np.ndarray, "points points"]
    kernel: Float32[np.ndarray, "points taps"]
    output: Float32[np.ndarray, "tile points"]


@functools.cache
def transforms(taps: int) -> Transforms:
    """Toom's and Cook's algorithm for a kernel `taps` wide: polynomials, multiplied at points."""
    points = POINTS[taps]
    image, kernel = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = math.prod(point - other for other in others)
        kernel.append([point**tap / scale for tap in range(taps)])
        image.append([*_with_roots(others), Fraction(0)])
    kernel.append([Fraction(tap == taps - 1) for tap in range(taps)])
    image.append(_with_roots(points))
    output = [[*(point**n for point in points), Fraction(n == TILE - 1)] for n in range(TILE)]
    return Transforms(*(np.array(rows, np.float32) for rows in (image, kernel, output)))


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the polynomial with these roots, the constant first."""
    found = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *found], [*(root * x for x in found), Fraction(0)]
        found = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return found


def convolve(
    x: Float32[Array, "b h w i"],
    kernel: Float32[Array, "y x i o"],
    padding: Padding,
    *,
    precision: Any = None,
) -> Float32[Array, "b p q o"]:
    """`jax.lax.conv_general_dilated` of stride 1, of a kernel as wide as one of `POINTS`."""
    taps = kernel.shape[1]
    matrices = transforms(taps)
    width = x.shape[2] + sum(padding[1]) - taps + 1
    # A product is no part of another loop, so that the kernel is transposed before it and apart.
    at_points = jnp.tensordot(matrices.kernel, kernel.swapaxes(0, 1), 1, precision=precision)
    products = [
        jax.lax.conv_general_dilated(
            part,
            at_points[point][:, None],
            (1, 1),
            (padding[0], (0, 0)),
            dimension_numbers=LAYOUT,
            precision=precision,
        )
        for point, part in enumerate(_image_at_points(x, padding[1], taps))
    ]
    tiles = jnp.stack([_combine(row, products) for row in matrices.output], axis=3)
    b, h, n, _, o = tiles.shape
    return tiles.reshape(b, h, n * TILE, o)[:, :, :width]


def image_gradient(
    grad: Float32[Array, "b p q o"],
    kernel: Float32[Array, "y x i o"],
    padding: Padding,
    *,
    precision: Any = None,
) -> Float32[Array, "b h w i"]:
    """The gradient of `convolve` with respect to its image: a convolution by the turned kernel.

    The padding is less than the kernel on every side.
    """
    sides = zip(kernel.shape, padding, strict=False)
    (top, bottom), (left, right) = ((n - 1 - low, n - 1 - high) for n, (low, high) in sides)
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return convolve(grad, turned, ((top, bottom), (left, right)), precision=precision)


def kernel_gradient(
    x: Float32[Array, "b h w i"],
    grad: Float32[Array, "b p q o"],
    sides: tuple[int, int],
    padding: Padding,
    *,
    precision: Any = None,
) -> Float32[Array, "y x i o"]:
    """The gradient of `convolve` with respect to its kernel, of these two sides."""
    rows, taps = sides
    matrices, height = transforms(taps), x.shape[1]
    rest = -grad.shape[2] % TILE
    low, high = padding[0]
    # Rows of zeros, so that the gradient is shifted within them and the image is not.
    edges = ((0, 0), (rows - 1 - low, rows - 1 - high), (0, rest), (0, 0))
    padded = jnp.pad(grad, edges)
    places = [padded[:, :, n::TILE] for n in range(TILE)]
    of_products = [_combine(column, places) for column in matrices.output.T]

    def of_point(both: tuple[jax.Array, jax.Array]) -> jax.Array:
        image, gradient = both
        shifted = [gradient[:, row : row + height] for row in reversed(range(rows))]
        return jnp.stack(
            [jnp.einsum("bhwi,bhwo->io", image, part, precision=precision) for part in shifted]
        )

    # A loop, so that the image is transposed for its products apart from its transform.
    arrays = (jnp.stack(_image_at_points(x, padding[1], taps)), jnp.stack(of_products))
    by_point = jax.lax.map(of_point, arrays)  # (points, y, i, o)
    return jnp.tensordot(matrices.kernel.T, by_point, 1, precision=precision).swapaxes(0, 1)


def _image_at_points(
    x: Float[Array, "b h w i"], padding: tuple[int, int], taps: int
) -> list[Float[Array, "b h n i"]]:
    """Each tile's pixels, which overlap its neighbours', transformed: an array a point."""
    low, high = padding
    tiles = -(-(x.shape[2] + low + high - taps + 1) // TILE)
    points = TILE + taps - 1
    end = TILE * tiles + taps - 1 - low - x.shape[2]
    padded = jnp.pad(x, ((0, 0), (0, 0), (low, end), (0, 0)))
    pixels = [padded[:, :, n : n + TILE * (tiles - 1) + 1 : TILE] for n in range(points)]
    return [_combine(row, pixels) for row in transforms(taps).image]


def _combine(factors: Float32[np.ndarray, " n"], arrays: Sequence[Any]) -> Any:
    """The sum of arrays times factors, without those whose factor is zero."""
    pairs = zip(factors, arrays, strict=True)
    terms = [x if factor == 1 else factor * x for factor, x in pairs if factor]
    return functools.reduce(jnp.add, terms)
