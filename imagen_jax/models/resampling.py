"""Up- and down-sampling by two, with and without convolution; patches (Imagen sections 2.5, B.1).

Resampling is reshapes, repeats and means: `jax.image.resize` would lose a sharding over height.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
    """Mean of each 2x2 patch."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def nearest(x: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
    """Each pixel four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def space_to_depth(x: Float[Array, "b h w c"], patch: int) -> Float[Array, "b p q d"]:
    """Patches of `patch` x `patch` pixels into channels: (b, h/p, w/p, p*p*c)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c)
    return x.swapaxes(2, 3).reshape(b, h // patch, w // patch, patch * patch * c)


def depth_to_space(x: Float[Array, "b p q d"], patch: int) -> Float[Array, "b h w c"]:
    """The inverse of `space_to_depth`."""
    b, h, w, d = x.shape
    x = x.reshape(b, h, w, patch, patch, d // patch**2)
    return x.swapaxes(2, 3).reshape(b, h * patch, w * patch, d // patch**2)


class ConvOfNearest(nn.Module):
    """`conv(...)(nearest(x))`, with the same parameters, in 4/9 of the products.

    Each of the four pixels that one becomes sees 2x2 others, under taps of the 3x3 kernel that fall
    on one pixel and are added. All four kernels are one convolution of windows that overlap.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b p q o"]:
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.channels)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        parts = _pairs(jnp.moveaxis(_pairs(kernel), 2, 0))  # (2, 2, 2, 2, i, o): columns, rows
        return _four(*nn.dtypes.promote_dtype(x, parts, bias, dtype=self.dtype))


class ConvTransposed(nn.Module):
    """Flax's transposed convolution 4x4 of stride 2, with the same parameters.

    Each of the four pixels that one becomes sees 2x2 others, under every second tap.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b p q o"]:
        shape = (4, 4, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        parts = kernel.reshape(2, 2, 2, 2, *shape[2:]).transpose(3, 2, 1, 0, 4, 5)
        return _four(*nn.dtypes.promote_dtype(x, parts, bias, dtype=self.dtype))


def _four(
    x: Float[Array, "b h w i"], parts: Float[Array, "2 2 2 2 i o"], bias: Float[Array, " o"]
) -> Float[Array, "b p q o"]:
    """Four pixels of each one. `parts`: column of the four and its tap, row and its tap."""
    (b, h, w, i), o = x.shape, bias.shape[0]
    parts = parts.transpose(3, 1, 4, 2, 0, 5)  # tap and tap, i, row and column of the four, o
    # Padded apart: XLA's CPU compiler has a loop without vectors for the kernel's gradient of a
    # convolution that gives more pixels than it gets.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = jax.lax.conv_general_dilated(
        padded,
        parts.reshape(2, 2, i, 4 * o),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    windows = windows.reshape(b, h + 1, w + 1, 2, 2, o)
    rows = [
        jnp.stack([windows[:, a : a + h, c : c + w, a, c] for c in range(2)], axis=3)
        for a in range(2)
    ]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, o) + bias[None, None, None, :]


def _pairs(taps: Float[Array, "3 ..."]) -> Float[Array, "2 2 ..."]:
    """Taps of an even and of an odd pixel on the two single pixels that they fall on."""
    first, middle, last = taps
    even, odd = (first, middle + last), (first + middle, last)
    return jnp.stack([jnp.stack(even), jnp.stack(odd)])
