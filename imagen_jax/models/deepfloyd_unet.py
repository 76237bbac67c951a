"""DeepFloyd IF's U-Net, stages I and II: ADM's blocks that read text and image in one attention.

Weights of diffusers' files fit it by `pretrained.deepfloyd`. It differs from Imagen's base network
in its activation, in what a residual sum is divided by, in the norm of the text, whose padding
counts, in time steps in place of levels, and in predicting a variance.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from imagen_jax import config
from imagen_jax.models.attention import Attention
from imagen_jax.models.conditioning import Conditioning, network_input
from imagen_jax.models.deepfloyd_conditioning import (
    EPSILON,
    DeepFloydEmbedding,
    DeepFloydText,
    activate,
    middle_level,
)
from imagen_jax.models.dense import Dense
from imagen_jax.models.layers import EXACT, Norm, Resample, check_size, conv
from imagen_jax.models.remat import maybe_remat
from imagen_jax.models.resampling import FusedUpsampleConv, average_pool, repeat_pixels
from imagen_jax.types import Features, Image, LogSNR, TextEmbedding, TextMask

COLOURS = 3


class DeepFloydUNet(nn.Module):
    """Predicts noise, and where the variance lies; `config.DeepFloydUNet` holds every choice.

    Source: github.com/deep-floyd/IF; diffusers' `UNet2DConditionModel`.
    """

    options: config.DeepFloydUNet

    def setup(self) -> None:
        self.text = DeepFloydText(self.options)

    def encode_text(
        self, text: TextEmbedding, text_mask: TextMask, has_text: Bool[Array, " b"]
    ) -> Conditioning:
        """All that depends on the prompt alone.

        Every row of `text` counts, those of padding included: the mask is not read, nor is
        `has_text`, as the null caption is the encoding of the empty prompt.
        """
        return self.text(text)

    @nn.compact
    def __call__(
        self, z: Image, logsnr: LogSNR, cond: Conditioning, *, train: bool = False
    ) -> Float32[Array, "b h w o"]:
        """Return noise, then with `learned_variance` three channels in about [-1, 1].

        Those say where the logarithm of the variance lies between its bounds.
        Shapes: z (b, h, w, 3) and the result (b, h, w, 6); logsnr (b,).
        Units: logsnr in nats; the result is float32.
        Errors: ValueError for a side that `options.multiple()` does not divide, or a
        low-resolution image that is not there, or not wanted.
        """
        o, dtype = self.options, jnp.dtype(self.options.dtype)
        check_size(z, o.multiple())
        if o.reads_low_res != (cond.low_res is not None):
            raise ValueError(
                f"reads_low_res={o.reads_low_res}, but low_res is "
                f"{'absent' if cond.low_res is None else 'given'}"
            )
        emb = DeepFloydEmbedding(o, name="emb")(logsnr, cond)
        down, middle, up = (
            maybe_remat(level, o.remat, part="level")
            for level in (DeepFloydDown, DeepFloydMiddle, DeepFloydUp)
        )
        x = network_input(z, cond).astype(dtype)
        h = conv(o.levels[0].channels, dtype, name="stem")(x)
        skips = [h]
        for level in range(len(o.levels)):
            h, outputs = down(o, level, name=f"down_{level}")(h, emb, cond)
            skips.extend(outputs)
        h = middle(o, name="mid")(h, emb, cond)
        for level in reversed(range(len(o.levels))):
            count = o.levels[level].res_blocks + 1
            taken, skips = skips[-count:], skips[:-count]
            h = up(o, level, name=f"up_{level}")(h, taken, emb, cond)
        h = Norm(o.norm_groups, o.norm_epsilon, name="head_norm")(h.astype(jnp.float32))
        outputs = COLOURS * (2 if o.learned_variance else 1)
        head = conv(outputs, jnp.float32, zero=True, precision=EXACT, name="head")
        return head(activate(h, o.activation))


class DeepFloydResBlock(nn.Module):
    """ADM's residual block: resampling inside, on both branches; FiLM at the second norm."""

    options: config.DeepFloydUNet
    channels: int
    divisor: float
    resample: Resample = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], emb: Float32[Array, "b e"]
    ) -> Float[Array, "b p q o"]:
        o, dtype = self.options, jnp.dtype(self.options.dtype)
        norm = (o.norm_groups, o.norm_epsilon)
        h = activate(Norm(*norm, name="norm_0")(x), o.activation)
        if self.resample == "down":
            x, h = average_pool(x), average_pool(h)
        if self.resample == "up":
            h = FusedUpsampleConv(self.channels, dtype, name="conv_0")(h)
        else:
            h = conv(self.channels, dtype, name="conv_0")(h)
        emb = activate(emb, o.activation) if o.activate_emb_in_blocks else emb
        both = Dense(2 * self.channels, dtype=dtype, name="film")(emb)
        scale, shift = jnp.split(both[:, None, None, :], 2, axis=-1)
        h = Norm(*norm, name="norm_1")(h) * (1 + scale) + shift
        h = conv(self.channels, dtype, zero=True, name="conv_1")(activate(h, o.activation))
        if x.shape[-1] != self.channels:
            x = Dense(self.channels, dtype=dtype, name="shortcut")(x)
        if self.resample == "up":
            x = repeat_pixels(x)
        return (x + h) / self.divisor


class DeepFloydDown(nn.Module):
    """Residual blocks of one level on the way down, and the halving after it."""

    options: config.DeepFloydUNet
    level: int

    @nn.compact
    def __call__(
        self, h: Features, emb: Float32[Array, "b e"], cond: Conditioning
    ) -> tuple[Float[Array, "b p q o"], list[Any]]:
        o, level, skips = self.options, self.options.levels[self.level], []
        block = maybe_remat(DeepFloydResBlock, o.remat, part="block")
        for k in range(level.res_blocks):
            h = block(o, level.channels, o.residual_divisor, name=f"res_{k}")(h, emb)
            if level.attention:
                h = _attention(self, level, f"attn_{k}")(h, cond.kv[f"{self.name}_attn_{k}"], None)
            skips.append(h)
        if self.level < len(o.levels) - 1:
            h = block(o, level.channels, o.residual_divisor, "down", name="down")(h, emb)
            skips.append(h)
        return h, skips


class DeepFloydMiddle(nn.Module):
    """Two residual blocks at the coarsest level, attention between them."""

    options: config.DeepFloydUNet

    @nn.compact
    def __call__(self, h: Features, emb: Float32[Array, "b e"], cond: Conditioning) -> Features:
        o = self.options
        block = maybe_remat(DeepFloydResBlock, o.remat, part="block")
        h = block(o, h.shape[-1], o.middle_residual_divisor, name="res_0")(h, emb)
        h = _attention(self, middle_level(o), "attn_0")(h, cond.kv["mid_attn_0"], None)
        return block(o, h.shape[-1], o.middle_residual_divisor, name="res_1")(h, emb)


class DeepFloydUp(nn.Module):
    """Residual blocks of one level on the way up, one per skip, and the doubling after it."""

    options: config.DeepFloydUNet
    level: int

    @nn.compact
    def __call__(
        self, h: Features, skips: list[Any], emb: Float32[Array, "b e"], cond: Conditioning
    ) -> Float[Array, "b p q o"]:
        o, level = self.options, self.options.levels[self.level]
        block = maybe_remat(DeepFloydResBlock, o.remat, part="block")
        for k, skip in enumerate(reversed(skips)):
            h = jnp.concatenate([h, skip], axis=-1)
            h = block(o, level.channels, o.residual_divisor, name=f"res_{k}")(h, emb)
            if level.attention:
                h = _attention(self, level, f"attn_{k}")(h, cond.kv[f"{self.name}_attn_{k}"], None)
        if self.level > 0:
            h = block(o, level.channels, o.residual_divisor, "up", name="up")(h, emb)
        return h


def _attention(module: Any, level: config.DeepFloydLevel, name: str) -> Attention:
    o = module.options
    block = maybe_remat(Attention, o.remat, part="block")
    return block(
        level.channels // level.head_channels,
        level.head_channels,
        o.norm_groups,
        jnp.dtype(o.dtype),
        image_keys=level.attention == "image_and_text",
        epsilon=EPSILON,
        name=name,
    )
