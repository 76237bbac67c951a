"""DeepFloyd IF's U-Net, stages I and II: ADM's blocks that read text and image in one attention.

Weights of diffusers' files fit it by `pretrained.deepfloyd`. It differs from Imagen's base network
in its activation, in what a residual sum is divided by, in the norm of the text, whose padding
counts, in time steps in place of levels, and in predicting a variance.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from imagen_jax import config, discrete_schedule
from imagen_jax.config.deepfloyd import TEXT_NORM_GROUPS
from imagen_jax.models.attention import Attention, KeysValues, attend
from imagen_jax.models.conditioning import Conditioning, network_input
from imagen_jax.models.dense import Dense
from imagen_jax.models.layers import (
    EXACT,
    MAX_PERIOD,
    Norm,
    Resample,
    check_size,
    conv,
    exact_dense,
)
from imagen_jax.models.remat import maybe_remat
from imagen_jax.models.resampling import FusedUpsampleConv, average_pool, repeat_pixels
from imagen_jax.models.text_conditioning import TextLayer
from imagen_jax.types import Embedding, Features, Image, LogSNR, TextEmbedding, TextMask

EPSILON = 1e-5  # of the norms of attention and text; those of residual blocks have an option
COLOURS = 3


def activate(x: Any, kind: config.Activation) -> Any:
    """Apply an activation; the gelu is the exact one."""
    return nn.gelu(x, approximate=False) if kind == "gelu" else nn.silu(x)


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


class DeepFloydText(nn.Module):
    """Text to `Conditioning`: pooled, and each attention layer's keys and values."""

    options: config.DeepFloydUNet

    @nn.compact
    def __call__(self, text: TextEmbedding) -> Conditioning:
        o = self.options
        text = text.astype(jnp.float32)
        read = exact_dense(o.text_channels, name="projection")(text)
        kv = {
            layer.name: DeepFloydTextKeysValues(o, layer, name=layer.name)(read)
            for layer in list_text_layers(o)
        }
        pooled = None
        if o.pool_heads is not None:
            pooled = DeepFloydPool(o.pool_heads, o.cond_channels, name="pool")(text)
        return Conditioning(kv=kv, text_mask=None, pooled=pooled)


class DeepFloydTextKeysValues(nn.Module):
    """One layer's text keys and values. The norm's statistics are over tokens, padding included."""

    options: config.DeepFloydUNet
    layer: TextLayer

    @nn.compact
    def __call__(self, text: Float32[Array, "b n d"]) -> KeysValues:
        o, layer = self.options, self.layer
        if o.text_norm:
            normed = Norm(TEXT_NORM_GROUPS, EPSILON, name="norm")(text[:, :, None, :])
            text = normed[:, :, 0, :]
        dtype, width = jnp.dtype(o.dtype), layer.heads * layer.head_dim
        shape = (*text.shape[:2], layer.heads, layer.head_dim)
        keys = Dense(width, dtype=dtype, name="key")(text)
        values = Dense(width, dtype=dtype, name="value")(text)
        return keys.reshape(shape), values.reshape(shape)


class DeepFloydPool(nn.Module):
    """Text to one vector: its mean over all tokens attends to itself and to them. In float32."""

    heads: int
    width: int

    @nn.compact
    def __call__(self, text: Float32[Array, "b n d"]) -> Embedding:
        b, _, d = text.shape
        if d % self.heads:
            raise ValueError(f"pool_heads={self.heads} must divide the width of the text, {d}")
        text = nn.LayerNorm(epsilon=EPSILON, name="norm_0")(text)
        position = self.param("position", nn.initializers.normal(d**-0.5), (1, d))
        mean = text.mean(axis=1, keepdims=True) + position[None]
        tokens = jnp.concatenate([mean, text], axis=1)

        def project(name: str, x: jax.Array) -> jax.Array:
            return exact_dense(d, name=name)(x).reshape(b, -1, self.heads, d // self.heads)

        mixed = attend(
            project("query", mean), project("key", tokens), project("value", tokens), None, EXACT
        )
        pooled = exact_dense(self.width, name="out")(mixed.reshape(b, d))
        return nn.LayerNorm(epsilon=EPSILON, name="norm_1")(pooled)


class DeepFloydEmbedding(nn.Module):
    """The vector that conditions every block: time step, step of the low-res noise, pooled text."""

    options: config.DeepFloydUNet

    @nn.compact
    def __call__(self, logsnr: LogSNR, cond: Conditioning) -> Float32[Array, "b e"]:
        o = self.options
        emb = DeepFloydTime(o, name="time")(logsnr)
        if cond.aug_logsnr is not None:
            emb = emb + DeepFloydTime(o, name="aug")(cond.aug_logsnr)
        if cond.pooled is not None:
            emb = emb + cond.pooled
        return emb if o.emb_activation is None else activate(emb, o.emb_activation)


class DeepFloydTime(nn.Module):
    """A level to a vector, in float32: sinusoids of its time step, then two dense layers."""

    options: config.DeepFloydUNet

    @nn.compact
    def __call__(self, logsnr: LogSNR) -> Embedding:
        o = self.options
        step = discrete_schedule.step_of(logsnr, o.betas)
        angles = step[:, None] * frequencies(o.levels[0].channels // 2, o.frequency_shift)[None, :]
        waves = [jnp.cos(angles), jnp.sin(angles)]
        x = jnp.concatenate(waves if o.cosine_first else waves[::-1], axis=-1)
        x = activate(exact_dense(o.cond_channels, name="dense_0")(x), o.activation)
        return exact_dense(o.cond_channels, name="dense_1")(x)


def frequencies(count: int, shift: int) -> np.ndarray:
    """Angular frequencies of the time steps' sinusoids, float32 (count,), in radians a step.

    Their exponents are rounded to float32, as PyTorch has them: at step 999 a rounding more turns
    by 6e-5.
    """
    steps = np.arange(count, dtype=np.float32)
    exponents = np.float32(-np.log(MAX_PERIOD)) * steps / np.float32(count - shift)
    return np.exp(exponents.astype(np.float64)).astype(np.float32)


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


def middle_level(o: config.DeepFloydUNet) -> config.DeepFloydLevel:
    """The middle as a level, for its attention."""
    return config.DeepFloydLevel(
        channels=o.levels[-1].channels,
        attention=o.middle_attention,
        head_channels=o.middle_head_channels,
    )


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


def list_text_layers(o: config.DeepFloydUNet) -> tuple[TextLayer, ...]:
    """Every attention layer, by the name under which it finds its text keys and values."""
    layers = []
    for way, extra in (("down", 0), ("up", 1)):
        for number, level in enumerate(o.levels):
            for k in range(level.res_blocks + extra if level.attention else 0):
                heads = level.channels // level.head_channels
                layers.append(TextLayer(f"{way}_{number}_attn_{k}", heads, level.head_channels))
    middle = middle_level(o)
    heads = middle.channels // middle.head_channels
    return (*layers, TextLayer("mid_attn_0", heads, middle.head_channels))
