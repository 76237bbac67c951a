"""The Efficient U-Net of both super-resolution stages (Imagen section 2.5, appendix B.1).

Depth sits at low resolution; a level halves first and doubles last.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from imagen_jax import config
from imagen_jax.models.attention import AttentionBlock
from imagen_jax.models.conditioning import Conditioning, NoiseEmbedding, network_input
from imagen_jax.models.dense import Dense
from imagen_jax.models.layers import (
    EXACT,
    BlockStyle,
    Film,
    Norm,
    ResBlock,
    Upsample,
    block_style,
    check_size,
    conv,
    exact_dense,
)
from imagen_jax.models.remat import maybe_remat
from imagen_jax.models.text_conditioning import Conditioner, TextLayer
from imagen_jax.types import Embedding, Features, Image, LogSNR, TextEmbedding, TextMask


class EfficientUNet(nn.Module):
    """Predicts from a noisy image and a low-resolution one; `config.EfficientUNet` has choices.

    Source: Imagen figs. A.27 to A.30; skips at every level but the deepest.
    """

    options: config.EfficientUNet

    def setup(self) -> None:
        o = self.options
        dtype = jnp.dtype(o.dtype)
        self.text = Conditioner(
            o.text, list_text_layers(o), o.cond_channels, o.pool_head_channels, dtype
        )

    def encode_text(
        self, text: TextEmbedding, text_mask: TextMask, has_text: Bool[Array, " b"]
    ) -> Conditioning:
        """All that depends on the prompt alone; rows without `has_text` become the null caption."""
        return self.text(text, text_mask, has_text)

    @nn.compact
    def __call__(
        self, z: Image, logsnr: LogSNR, cond: Conditioning, *, train: bool = False
    ) -> Image:
        """Return the raw prediction.

        Shapes: z and the result (b, h, w, c); logsnr (b,).
        Units: logsnr in nats; the result is float32.
        Errors: ValueError for a side that `options.multiple()` does not divide.
        """
        o = self.options
        check_size(z, o.multiple())
        style = block_style(o, train=train)
        width = o.cond_channels
        embed = NoiseEmbedding(o.stem_channels, width, o.time_embed, style.dtype, name="emb")
        emb = embed(logsnr, cond)

        down, up = (maybe_remat(level, o.remat, part="level") for level in (DBlock, UBlock))

        # Down
        x = network_input(z, cond).astype(style.dtype)
        stem = h = conv(o.stem_channels, style.dtype, name="stem")(x)
        skips: list[Any] = []
        for level in range(len(o.levels)):
            h = down(o, style, level, name=f"down_{level}")(h, emb, cond)
            skips.append(h)

        # Up; the deepest level has no skip
        skips[-1] = None
        for level in reversed(range(len(o.levels))):
            h = up(o, style, level, name=f"up_{level}")(h, skips[level], emb, cond)
        if o.stem_skip:
            h = Merge(o.skip_merge, style, name="stem_skip")(h, stem)

        # Head, in float32
        h = h.astype(jnp.float32)
        if o.head == "dense":
            return exact_dense(z.shape[-1], zero=True, name="head")(h)
        h = nn.swish(Norm(o.norm_groups, name="head_norm")(h))
        return conv(z.shape[-1], jnp.float32, zero=True, precision=EXACT, name="head")(h)


class DBlock(nn.Module):
    """One level on the way down (fig. A.28): halve, residual blocks, attention."""

    options: config.EfficientUNet
    style: BlockStyle
    level: int

    @nn.compact
    def __call__(self, h: Features, emb: Embedding, cond: Conditioning) -> Float[Array, "b p q o"]:
        level = self.options.levels[self.level]
        if level.stride == 2:
            h = conv(level.channels, self.style.dtype, stride=2, name="down")(h)
        return run_blocks(self, h, emb, cond)


class UBlock(nn.Module):
    """One level on the way up (fig. A.29): merge the skip, residual blocks, attention, double."""

    options: config.EfficientUNet
    style: BlockStyle
    level: int

    @nn.compact
    def __call__(
        self, h: Features, skip: Any, emb: Embedding, cond: Conditioning
    ) -> Float[Array, "b p q o"]:
        o, level = self.options, self.options.levels[self.level]
        if skip is not None:
            h = Merge(o.skip_merge, self.style, name="skip")(h, skip)
        h = run_blocks(self, h, emb, cond)
        if level.stride == 1:
            return h
        finest = all(above.stride == 1 for above in o.levels[: self.level])
        above = o.levels[self.level - 1].channels if self.level else o.stem_channels
        channels = level.channels if o.upsample_channels == "own" else above
        kind = o.last_upsample if finest else o.upsample
        return Upsample(channels, kind, self.style.dtype, name="up")(h)


class Merge(nn.Module):
    """Join a long skip to the upward path; an added one is projected where widths differ."""

    how: str
    style: BlockStyle

    @nn.compact
    def __call__(
        self, h: Float[Array, "b h w c"], skip: Float[Array, "b h w s"]
    ) -> Float[Array, "b h w o"]:
        skip = self.style.long_skip(skip)
        if self.how == "concat":
            return jnp.concatenate([h, skip], axis=-1)
        if skip.shape[-1] != h.shape[-1]:
            skip = Dense(h.shape[-1], dtype=self.style.dtype, name="project")(skip)
        return h + skip


def run_blocks(
    module: DBlock | UBlock, h: Features, emb: Embedding, cond: Conditioning
) -> Float[Array, "b h w o"]:
    """The residual blocks and the attention of a level, as submodules of its block."""
    o, style, level = module.options, module.style, module.options.levels[module.level]
    block = maybe_remat(ResBlock, o.remat, part="block")
    if not o.film_per_block:
        h = Film(style.dtype, name="film")(h, emb)
    for k in range(level.blocks):
        within = emb if o.film_per_block else None
        h = block(level.channels, style, project=True, name=f"res_{k}")(h, within)
    if not (level.self_attention or level.text_attention):
        return h
    text = cond.kv[f"{module.name}_attn_0"] if level.text_attention else None
    attention = maybe_remat(AttentionBlock, o.remat, part="block")(
        *(o.heads, o.attention_width(level) // o.heads, o.norm_groups, style.dtype),
        image_keys=level.self_attention,
        joined=o.text.kv == "concat",
        feed_forward=level.channels * o.attn_hidden_mult if o.attn_ffn else 0,
        name="attn_0",
    )
    return attention(h, text, cond.text_mask)


def list_text_layers(o: config.EfficientUNet) -> tuple[TextLayer, ...]:
    """Every attention block that reads the text, named as `run_blocks` asks for it."""
    return tuple(
        TextLayer(f"{way}_{i}_attn_0", o.heads, o.attention_width(level) // o.heads)
        for way in ("down", "up")
        for i, level in enumerate(o.levels)
        if level.text_attention
    )
