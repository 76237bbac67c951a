"""Norms, residual block, time embedding (Imagen sections 2.5, B.1)."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from imagen_jax import config
from imagen_jax.models.convolution import convolve
from imagen_jax.models.dense import Dense
from imagen_jax.models.resampling import (
    FusedUpsampleConv,
    TransposedConv,
    average_pool,
    depth_to_space,
    repeat_pixels,
)
from imagen_jax.types import Embedding, Features, LogSNR

EPSILON = 1e-6  # of Imagen's norms; Flax's default, PyTorch's is 1e-5
FLOOR = 2.0**-11  # of a deviation by its mean: less is rounding error of a variance in float32
LOGSNR_LIMIT = 20.0  # nats; the time features saturate there
MAX_PERIOD = 10_000.0
EXACT = jax.lax.Precision.HIGHEST  # of products in float32, which a TPU makes in bfloat16 by itself

Resample = Literal["none", "down", "up"]
TimeEmbed = Literal["cosine_time", "logsnr"]
Upsampling = Literal["nearest", "depth_to_space", "transposed"]


@dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """Options that all blocks of a network share."""

    norm_groups: int
    residual_scaling: config.ResidualScaling
    residual_scale: float
    zero_init: bool  # of each residual block's last convolution
    dropout: float
    dtype: Any  # of activations

    def join(self, shortcut: Features, branch: Features) -> Features:
        """Shortcut and main branch of a residual block, added and scaled."""
        if self.residual_scaling == "sum":
            return (shortcut + branch) * self.residual_scale
        if self.residual_scaling == "shortcut":
            return shortcut * self.residual_scale + branch
        return shortcut + branch

    def long_skip(self, skip: Features) -> Features:
        """A skip from the downward to the upward path, scaled if that is the reading chosen."""
        return skip * self.residual_scale if self.residual_scaling == "long_skip" else skip


def block_style(options: config.UNet | config.EfficientUNet, *, train: bool) -> BlockStyle:
    """The style that a network's options ask for; dropout only in training."""
    return BlockStyle(
        norm_groups=options.norm_groups,
        residual_scaling=options.residual_scaling,
        residual_scale=options.residual_scale,
        zero_init=options.zero_init_residual,
        dropout=options.dropout if train else 0.0,
        dtype=jnp.dtype(options.dtype),
    )


def check_size(z: Features, multiple: int) -> None:
    """Errors: ValueError naming a side that the network's total stride does not divide."""
    for name, side in zip(("height", "width"), z.shape[1:3], strict=True):
        if side % multiple or side == 0:
            raise ValueError(
                f"{name} {side} does not divide by {multiple}, the network's total stride"
            )


class Norm(nn.Module):
    """GroupNorm with float32 statistics; gives back the dtype it got.

    Products with the groups' membership make one factor and one offset a channel. They are tiny,
    and stay apart from the loop over pixels: with all six vectors of norm, FiLM and convolution in
    it XLA's CPU compiler does not vectorise that loop, which then takes five times as long. Sums
    are over channels first, so that no reshape splits the channels, which lie in a TPU's lanes.
    One pass finds mean and mean square, whose difference has lost digits where a group's mean is
    far above its deviation: at 300 times the result is off by .4 %, at 1000 by 4 %. A second pass
    costs 1.2 to 3.5 times the gradient on CPUs. Beyond that the deviation counts as `FLOOR` of it.
    """

    groups: int
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        member = jnp.repeat(jnp.eye(self.groups), channels // self.groups, axis=1)  # (groups, c)
        wide = x.astype(jnp.float32)
        moments = jnp.stack([wide.mean(axis=(1, 2)), jnp.square(wide).mean(axis=(1, 2))])
        mean, square = _exact_dot(moments, member.T) * (self.groups / channels)  # each (b, groups)
        centre = jnp.square(mean)
        inverse = jax.lax.rsqrt(jnp.maximum(square - centre, FLOOR**2 * centre) + self.epsilon)
        scaled = member * scale[None, :]
        factor = _exact_dot(inverse, scaled)
        shift = jnp.concatenate([-mean * inverse, jnp.ones((x.shape[0], 1))], axis=1)
        offset = _exact_dot(shift, jnp.concatenate([scaled, bias[None, :]]))
        return (wide * factor[:, None, None, :] + offset[:, None, None, :]).astype(x.dtype)


def _exact_dot(left: Float32[Array, "*n k"], right: Float32[Array, "k m"]) -> Any:
    """A product in float32 on every device."""
    return jnp.dot(left, right, precision=EXACT)


def exact_dense(features: int, *, zero: bool = False, name: str) -> nn.Dense:
    """A dense layer in float32 on every device; `zero` starts it at zero."""
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return Dense(features, precision=EXACT, kernel_init=init, name=name)


def conv(
    features: int,
    dtype: Any,
    *,
    stride: int = 1,
    zero: bool = False,
    precision: jax.lax.Precision | None = None,
    name: str,
) -> nn.Conv:
    """A 3x3 convolution; `zero` starts it at zero."""
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    options = {"dtype": dtype, "kernel_init": init, "precision": precision, "name": name}
    return nn.Conv(features, (3, 3), stride, conv_general_dilated=convolve, **options)


class Film(nn.Module):
    """Scale and shift of features by an embedding."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Features, emb: Float[Array, "b e"]) -> Features:
        both = Dense(2 * x.shape[-1], dtype=self.dtype, name="dense")(nn.swish(emb))
        scale, shift = jnp.split(both[:, None, None, :], 2, axis=-1)
        return x * (1 + scale) + shift  # (b, h, w, c) by (b, 1, 1, c)


class ResBlock(nn.Module):
    """BigGAN's residual block: resampling inside, on both branches; FiLM at the second norm.

    Source: ADM (arXiv:2105.05233); Imagen fig. A.27 for `project`.
    """

    channels: int
    style: BlockStyle
    resample: Resample = "none"
    project: bool = False  # a 1x1 shortcut even where the width stays

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], emb: Float[Array, "b e"] | None
    ) -> Float[Array, "b p q o"]:
        style = self.style
        h = nn.swish(Norm(style.norm_groups, name="norm_0")(x))
        if self.resample == "down":
            x, h = average_pool(x), average_pool(h)
        if self.resample == "up":
            h = FusedUpsampleConv(self.channels, style.dtype, name="conv_0")(h)
        else:
            h = conv(self.channels, style.dtype, name="conv_0")(h)
        h = Norm(style.norm_groups, name="norm_1")(h)
        if emb is not None:
            h = Film(style.dtype, name="film")(h, emb)
        h = nn.swish(h)
        if style.dropout:
            h = nn.Dropout(style.dropout, deterministic=False)(h)
        h = conv(self.channels, style.dtype, zero=style.zero_init, name="conv_1")(h)
        if self.project or x.shape[-1] != self.channels:
            x = Dense(self.channels, dtype=style.dtype, name="shortcut")(x)
        if self.resample == "up":
            x = repeat_pixels(x)  # a pixel's shortcut does not change by being repeated
        return style.join(x, h)


def time_features(logsnr: LogSNR, *, features: int, kind: TimeEmbed) -> Float32[Array, "b f"]:
    """Sinusoids of a time in [0, 1000] recovered from logsnr.

    Shapes: logsnr (b,); result (b, 2 * (features // 2)), sines first.
    Source: arXiv:2202.00512's code: cosine-schedule time, u(0) = 0.5, u(20) = 2.9e-5.
    """
    clipped = jnp.clip(logsnr, -LOGSNR_LIMIT, LOGSNR_LIMIT)
    if kind == "cosine_time":
        time = jnp.arctan(jnp.exp(-0.5 * clipped)) / (0.5 * math.pi)
    else:
        time = (LOGSNR_LIMIT - clipped) / (2 * LOGSNR_LIMIT)
    return sinusoids(1000.0 * time, features=features)


def sinusoids(values: Float32[Array, " b"], *, features: int) -> Float32[Array, "b f"]:
    """Sines, then cosines, of values at frequencies from 1 down to 1 / MAX_PERIOD.

    Shapes: result (b, 2 * (features // 2)).
    """
    half = features // 2
    steps = jnp.arange(half, dtype=jnp.float32) / max(half - 1, 1)
    angles = values[:, None] * jnp.exp(-math.log(MAX_PERIOD) * steps)[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """Noise level to a vector, in float32: sinusoids, then two dense layers."""

    features: int  # of the sinusoids
    width: int
    kind: TimeEmbed

    @nn.compact
    def __call__(self, logsnr: LogSNR) -> Embedding:
        x = time_features(logsnr, features=self.features, kind=self.kind)
        x = nn.swish(exact_dense(self.width, name="dense_0")(x))
        return exact_dense(self.width, name="dense_1")(x)


class GuidanceEmbedding(nn.Module):
    """Guidance weight to a vector that is zero at first, in float32.

    A distilled network so begins as its teacher. Source: arXiv:2210.03142, section 3.1.
    """

    features: int  # of the sinusoids
    width: int

    @nn.compact
    def __call__(self, weight: LogSNR) -> Embedding:
        x = sinusoids(weight, features=self.features)
        x = nn.swish(exact_dense(self.width, name="dense_0")(x))
        return exact_dense(self.width, zero=True, name="dense_1")(x)


class Upsample(nn.Module):
    """A convolution that doubles both sides.

    Source: Imagen fig. A.29. A transposed kernel of 4 avoids the checkerboards of 3.
    """

    channels: int
    kind: Upsampling
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b p q o"]:
        if self.kind == "nearest":  # convolve where it is cheap
            return repeat_pixels(conv(self.channels, self.dtype, name="conv")(x))
        if self.kind == "depth_to_space":
            return depth_to_space(conv(4 * self.channels, self.dtype, name="conv")(x), 2)
        return TransposedConv(self.channels, self.dtype, name="conv")(x)
