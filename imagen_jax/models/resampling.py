"""Up- and down-sampling by two, with and without convolution; patches (Imagen sections 2.5, B.1).

Resampling is reshapes, repeats and means: `jax.image.resize` would lose a sharding over height.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from imagen_jax.models.convolution import convolve


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
    """Mean of each 2x2 patch."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def repeat_pixels(x: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
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


class FusedUpsampleConv(nn.Module):
    """`conv(...)(nearest(x))`, with the same parameters, in 4/9 of the products.

    Each of the four pixels that one becomes sees 2x2 others, under taps of the 3x3 kernel that fall
    on one pixel and are added: a transposed convolution.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b p q o"]:
        shape = (3, 3, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        # Added in float32, where the kernel is kept in less, too.
        apart = jnp.pad(kernel.astype(jnp.float32), ((1, 1), (1, 1), (0, 0), (0, 0)))
        rows = apart[:-1] + apart[1:]
        taps = rows[:, :-1] + rows[:, 1:]
        return _doubled(*nn.dtypes.promote_dtype(x, taps, bias, dtype=self.dtype))


class TransposedConv(nn.Module):
    """Flax's transposed convolution 4x4 of stride 2, with the same parameters."""

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b p q o"]:
        shape = (4, 4, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return _doubled(*nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype))


def _doubled(
    x: Float[Array, "b h w i"], kernel: Float[Array, "4 4 i o"], bias: Float[Array, " o"]
) -> Float[Array, "b p q o"]:
    convolved = jax.lax.platform_dependent(x, kernel, tpu=_of_zeros, default=_of_windows)
    return convolved + bias[None, None, None, :]


def _of_zeros(
    x: Float[Array, "b h w i"], kernel: Float[Array, "4 4 i o"]
) -> Float[Array, "b p q o"]:
    """One convolution of pixels with zeros between them. CPUs and GPUs multiply the zeros."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _of_windows(
    x: Float[Array, "b h w i"], kernel: Float[Array, "4 4 i o"]
) -> Float[Array, "b p q o"]:
    """Every second tap for each of the four pixels, as one convolution of windows that overlap."""
    (b, h, w, i), o = x.shape, kernel.shape[-1]
    taps = kernel.reshape(2, 2, 2, 2, i, o)  # tap and row of the four, tap and column
    taps = taps.transpose(0, 2, 4, 1, 3, 5)  # tap and tap, i, row and column, o
    # Padded apart: XLA's CPU compiler has a loop without vectors for the kernel's gradient of a
    # convolution that gives more pixels than it gets.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = convolve(padded, taps.reshape(2, 2, i, 4 * o), (1, 1), ((0, 0), (0, 0)))
    windows = windows.reshape(b, h + 1, w + 1, 2, 2, o)
    rows = [
        jnp.stack([windows[:, a : a + h, c : c + w, a, c] for c in range(2)], axis=3)
        for a in range(2)
    ]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, o)
