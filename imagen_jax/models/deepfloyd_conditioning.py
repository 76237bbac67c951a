"""Conditioning of DeepFloyd IF's U-Net: the text, the time step, and the low-res image's noise.

The norm of the text counts its padding, too, and levels are turned into time steps.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from imagen_jax import config, discrete_schedule
from imagen_jax.config.deepfloyd import TEXT_NORM_GROUPS
from imagen_jax.models.attention import KeysValues, attend
from imagen_jax.models.conditioning import Conditioning
from imagen_jax.models.dense import Dense
from imagen_jax.models.layers import EXACT, MAX_PERIOD, Norm, exact_dense
from imagen_jax.models.text_conditioning import TextLayer
from imagen_jax.types import Embedding, LogSNR, TextEmbedding

EPSILON = 1e-5  # of the norms of attention and text; those of residual blocks have an option


def activate(x: Any, kind: config.Activation) -> Any:
    """Apply an activation; the gelu is the exact one."""
    return nn.gelu(x, approximate=False) if kind == "gelu" else nn.silu(x)


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


def middle_level(o: config.DeepFloydUNet) -> config.DeepFloydLevel:
    """The middle as a level, for its attention."""
    return config.DeepFloydLevel(
        channels=o.levels[-1].channels,
        attention=o.middle_attention,
        head_channels=o.middle_head_channels,
    )
