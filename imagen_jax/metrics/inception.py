"""Inception-v3 of 2015-12-05 as FID has it: images to 2,048 numbers each.

It is not torchvision's: average pools leave padding out of their means, the last block has a
maximum where the others have a mean, images are enlarged as TensorFlow 1 did, and its classifier,
which is not needed here, has 1,008 classes.
Source: arXiv:1512.00567; FID (arXiv:1706.08500). Names are those of PyTorch's weights.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from imagen_jax.models import convolution
from imagen_jax.types import Features

SIDE = 299  # pixels that the network sees
EPSILON = 1e-3  # of its batch norms
EXACT = jax.lax.Precision.HIGHEST  # float32 is float32 on accelerators, too
POOL = ((0, 0), (1, 1), (1, 1), (0, 0))

Halved = Float[Array, "b p q o"]  # features whose size may have changed
# Kernels (height, width, in, out) and biases (out,).
Weights = Mapping[str, tuple[Float32[Array, "_ _ _ _"], Float32[Array, " _"]]]


class Conv(NamedTuple):
    """A convolution with its batch norm and ReLU."""

    inputs: int  # channels
    features: int
    size: tuple[int, int]  # height and width of its kernel
    stride: int = 1
    same: bool = True  # padded to keep the image's size; else not padded


def _conv(inputs: int, features: int, height: int, width: int | None = None) -> Conv:
    return Conv(inputs, features, (height, width or height))


def _halving(inputs: int, features: int) -> Conv:
    return Conv(inputs, features, (3, 3), stride=2, same=False)


def _block_a(inputs: int, pooled: int) -> dict[str, Conv]:
    return {
        "branch1x1": _conv(inputs, 64, 1),
        "branch5x5_1": _conv(inputs, 48, 1),
        "branch5x5_2": _conv(48, 64, 5),
        "branch3x3dbl_1": _conv(inputs, 64, 1),
        "branch3x3dbl_2": _conv(64, 96, 3),
        "branch3x3dbl_3": _conv(96, 96, 3),
        "branch_pool": _conv(inputs, pooled, 1),
    }


def _block_c(inner: int) -> dict[str, Conv]:
    return {
        "branch1x1": _conv(768, 192, 1),
        "branch7x7_1": _conv(768, inner, 1),
        "branch7x7_2": _conv(inner, inner, 1, 7),
        "branch7x7_3": _conv(inner, 192, 7, 1),
        "branch7x7dbl_1": _conv(768, inner, 1),
        "branch7x7dbl_2": _conv(inner, inner, 7, 1),
        "branch7x7dbl_3": _conv(inner, inner, 1, 7),
        "branch7x7dbl_4": _conv(inner, inner, 7, 1),
        "branch7x7dbl_5": _conv(inner, 192, 1, 7),
        "branch_pool": _conv(768, 192, 1),
    }


def _block_e(inputs: int) -> dict[str, Conv]:
    return {
        "branch1x1": _conv(inputs, 320, 1),
        "branch3x3_1": _conv(inputs, 384, 1),
        "branch3x3_2a": _conv(384, 384, 1, 3),
        "branch3x3_2b": _conv(384, 384, 3, 1),
        "branch3x3dbl_1": _conv(inputs, 448, 1),
        "branch3x3dbl_2": _conv(448, 384, 3),
        "branch3x3dbl_3a": _conv(384, 384, 1, 3),
        "branch3x3dbl_3b": _conv(384, 384, 3, 1),
        "branch_pool": _conv(inputs, 192, 1),
    }


BLOCK_B = {
    "branch3x3": _halving(288, 384),
    "branch3x3dbl_1": _conv(288, 64, 1),
    "branch3x3dbl_2": _conv(64, 96, 3),
    "branch3x3dbl_3": _halving(96, 96),
}
BLOCK_D = {
    "branch3x3_1": _conv(768, 192, 1),
    "branch3x3_2": _halving(192, 320),
    "branch7x7x3_1": _conv(768, 192, 1),
    "branch7x7x3_2": _conv(192, 192, 1, 7),
    "branch7x7x3_3": _conv(192, 192, 7, 1),
    "branch7x7x3_4": _halving(192, 192),
}
STEM = {
    "Conv2d_1a_3x3": _halving(3, 32),
    "Conv2d_2a_3x3": Conv(32, 32, (3, 3), same=False),
    "Conv2d_2b_3x3": _conv(32, 64, 3),
    "Conv2d_3b_1x1": _conv(64, 80, 1),
    "Conv2d_4a_3x3": Conv(80, 192, (3, 3), same=False),
}
BLOCKS = {
    **{"Mixed_5b": _block_a(192, 32), "Mixed_5c": _block_a(256, 64), "Mixed_5d": _block_a(288, 64)},
    "Mixed_6a": BLOCK_B,
    **{"Mixed_6b": _block_c(128), "Mixed_6c": _block_c(160)},
    **{"Mixed_6d": _block_c(160), "Mixed_6e": _block_c(192)},
    **{"Mixed_7a": BLOCK_D, "Mixed_7b": _block_e(1280), "Mixed_7c": _block_e(2048)},
}
CONVS = STEM | {
    f"{block}.{name}": conv for block, convs in BLOCKS.items() for name, conv in convs.items()
}


def embed(weights: Weights, pixels: UInt8[Array, "b h w 3"]) -> Float32[Array, "b d"]:
    """Features of images of any size, each resized to 299 x 299.

    Shapes: result (b, 2048), or less of a narrower network.
    """
    return features(weights, (resize(pixels, SIDE) - 128.0) / 128.0)


def features(weights: Weights, x: Float32[Array, "b h w 3"]) -> Float32[Array, "b d"]:
    """Features of images in [-1, 1], of 75 pixels or more."""
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
        x = _convolve(weights, name, x)
    x = _max_pool(x)
    for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
        x = _convolve(weights, name, x)
    x = _max_pool(x)
    for block in BLOCKS:
        x = _run_block(weights, block, x)
    return x.mean(axis=(1, 2))


def resize(pixels: UInt8[Array, "b h w 3"], side: int) -> Float32[Array, "b side side 3"]:
    """Bilinear, without antialiasing, corners at the images' corners: `resize_bilinear` of
    TensorFlow 1. Values stay in 0-255, and are not rounded."""
    _, height, width, _ = pixels.shape
    rows, columns = _weights_of_rows(height, side), _weights_of_rows(width, side)
    wide = jnp.einsum("bhwc,qw->bhqc", pixels.astype(jnp.float32), columns, precision=EXACT)
    return jnp.einsum("bhqc,ph->bpqc", wide, rows, precision=EXACT)


def _weights_of_rows(size: int, side: int) -> Float32[np.ndarray, "side size"]:
    """The share that each of `size` rows has in each of `side` new ones."""
    place = np.arange(side, dtype=np.float32) * np.float32(size / side)
    lower = np.floor(place).astype(int)
    upper = np.minimum(lower + 1, size - 1)
    beyond = place - lower.astype(np.float32)
    found = np.zeros((side, size), np.float32)
    np.add.at(found, (np.arange(side), lower), 1 - beyond)
    np.add.at(found, (np.arange(side), upper), beyond)
    return found


def _run_block(weights: Weights, block: str, x: Features) -> Halved:
    """The branches of a block, side by side: the pooled one comes last."""

    def run(first: Features, *names: str) -> Halved:
        for name in names:
            first = _convolve(weights, f"{block}.{name}", first)
        return first

    convs = BLOCKS[block]
    if "branch3x3_2a" in convs:
        branches = _split_branches(run, x)
    else:
        groups: dict[str, list[str]] = {}
        for name in convs:
            if name != "branch_pool":
                groups.setdefault(name.rpartition("_")[0] or name, []).append(name)
        branches = [run(x, *names) for names in groups.values()]
    if "branch_pool" not in convs:
        return jnp.concatenate([*branches, _max_pool(x)], axis=-1)
    pooled = _max_pool_same(x) if block == "Mixed_7c" else _mean_pool(x)
    return jnp.concatenate([*branches, run(pooled, "branch_pool")], axis=-1)


def _split_branches(run: Callable[..., Any], x: Features) -> list[Any]:
    """The branches of the last blocks, of which two end in two convolutions side by side."""
    middle, double = run(x, "branch3x3_1"), run(x, "branch3x3dbl_1", "branch3x3dbl_2")
    return [
        run(x, "branch1x1"),
        *(run(middle, f"branch3x3_2{side}") for side in "ab"),
        *(run(double, f"branch3x3dbl_3{side}") for side in "ab"),
    ]


def _convolve(weights: Weights, name: str, x: Features) -> Halved:
    """Convolution, folded batch norm, ReLU."""
    (kernel, bias), conv = weights[name], CONVS[name]
    height, width = conv.size
    if conv.stride > 1:
        x = _halve(x, kernel)
    else:
        padding = [(height // 2,) * 2, (width // 2,) * 2] if conv.same else [(0, 0), (0, 0)]
        x = convolution.convolve(x, kernel, (1, 1), padding, precision=EXACT)
    return jax.nn.relu(x + bias[None, None, None, :])


def _halve(x: Features, kernel: Float[Array, "3 3 i o"]) -> Halved:
    """A convolution of every second pixel, without padding.

    XLA for TPUs is reported to miscompile it at small batches when it is fused with what is around
    it; barriers keep it apart. XLA for CPUs takes two to three times as long without any padding:
    a row and a column of zeros are added at the end, and what they give an even side is left out.
    """
    rows, columns = ((side - 3) // 2 + 1 for side in x.shape[1:3])
    halved = jax.lax.conv_general_dilated(
        jax.lax.optimization_barrier(x),
        kernel,
        (2, 2),
        [(0, 1), (0, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=EXACT,
    )
    return jax.lax.optimization_barrier(halved)[:, :rows, :columns]


def _max_pool(x: Features) -> Halved:
    """The maximum of 3 x 3 pixels, at every second one, without padding."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _max_pool_same(x: Features) -> Features:
    """The maximum of 3 x 3 pixels, at every one."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), POOL)


def _mean_pool(x: Features) -> Features:
    """The mean of those of 3 x 3 pixels that are in the image."""

    def add(values: Features) -> Float[Array, "b h w c"]:
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), POOL)

    count = add(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
    return add(x) / count
