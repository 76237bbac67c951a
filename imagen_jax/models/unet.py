"""The base network: an ADM-style U-Net (Imagen section 2.5, appendix F.1)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from imagen_jax import config
from imagen_jax.models.attention import AttentionBlock
from imagen_jax.models.conditioning import Conditioning, NoiseEmbedding, network_input
from imagen_jax.models.layers import (
    EXACT,
    BlockStyle,
    Norm,
    ResBlock,
    block_style,
    check_size,
    conv,
)
from imagen_jax.models.remat import maybe_remat
from imagen_jax.models.resampling import depth_to_space, space_to_depth
from imagen_jax.models.text_conditioning import Conditioner, TextLayer
from imagen_jax.types import Embedding, Features, Image, LogSNR, TextEmbedding, TextMask


class UNet(nn.Module):
    """Predicts from a noisy image; `config.UNet` holds every choice.

    Source: ADM (arXiv:2105.05233) with Imagen's widths; layer order of arXiv:2202.00512's code.
    """

    options: config.UNet

    def setup(self) -> None:
        o = self.options
        dtype = jnp.dtype(o.dtype)
        self.text = Conditioner(o.text, list_text_layers(o), o.width_cond, o.head_channels, dtype)

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
        embed = NoiseEmbedding(o.channels, o.width_cond, o.time_embed, style.dtype, name="emb")
        emb = embed(logsnr, cond)

        down, middle, up = (
            maybe_remat(level, o.remat, part="level") for level in (Down, Middle, Up)
        )

        # Down
        x = network_input(z, cond).astype(style.dtype)
        h = conv(o.channels, style.dtype, name="stem")(space_to_depth(x, o.patch))
        skips = [h]
        for level in range(len(o.channel_mult)):
            h, outputs = down(o, style, level, name=f"down_{level}")(h, emb, cond)
            skips.extend(outputs)

        # Middle and up
        h = middle(o, style, name="mid")(h, emb, cond)
        for level in reversed(range(len(o.channel_mult))):
            taken, skips = skips[-o.res_blocks - 1 :], skips[: -o.res_blocks - 1]
            h = up(o, style, level, name=f"up_{level}")(h, taken, emb, cond)

        # Head, in float32
        h = nn.swish(Norm(o.norm_groups, name="head_norm")(h.astype(jnp.float32)))
        out = conv(z.shape[-1] * o.patch**2, jnp.float32, zero=True, precision=EXACT, name="head")(
            h
        )
        return depth_to_space(out, o.patch)


class Down(nn.Module):
    """Residual blocks of one level on the way down, and the halving after it."""

    options: config.UNet
    style: BlockStyle
    level: int

    @nn.compact
    def __call__(
        self, h: Features, emb: Embedding, cond: Conditioning
    ) -> tuple[Float[Array, "b p q o"], list[Any]]:
        o, skips = self.options, []
        block = maybe_remat(ResBlock, o.remat, part="block")
        for k in range(o.res_blocks):
            h = block(o.channels * o.channel_mult[self.level], self.style, name=f"res_{k}")(h, emb)
            if has_attention(o, self.level, k, o.res_blocks):
                h = attention(o, h.shape[-1], f"attn_{k}")(h, *text_kv(self, cond, f"attn_{k}"))
            skips.append(h)
        if self.level < len(o.channel_mult) - 1:
            h = block(h.shape[-1], self.style, resample="down", name="down")(h, emb)
            skips.append(h)
        return h, skips


class Middle(nn.Module):
    """Two residual blocks at the coarsest level, attention between them."""

    options: config.UNet
    style: BlockStyle

    @nn.compact
    def __call__(self, h: Features, emb: Embedding, cond: Conditioning) -> Features:
        o = self.options
        block = maybe_remat(ResBlock, o.remat, part="block")
        h = block(h.shape[-1], self.style, name="res_0")(h, emb)
        if o.attention_at:
            h = attention(o, h.shape[-1], "attn_0")(h, *text_kv(self, cond, "attn_0"))
        return block(h.shape[-1], self.style, name="res_1")(h, emb)


class Up(nn.Module):
    """Residual blocks of one level on the way up, one per skip, and the doubling after it."""

    options: config.UNet
    style: BlockStyle
    level: int

    @nn.compact
    def __call__(
        self, h: Features, skips: list[Any], emb: Embedding, cond: Conditioning
    ) -> Float[Array, "b p q o"]:
        o = self.options
        block = maybe_remat(ResBlock, o.remat, part="block")
        for k, skip in enumerate(reversed(skips)):
            h = jnp.concatenate([h, self.style.long_skip(skip)], axis=-1)
            h = block(o.channels * o.channel_mult[self.level], self.style, name=f"res_{k}")(h, emb)
            if has_attention(o, self.level, k, o.res_blocks + 1):
                h = attention(o, h.shape[-1], f"attn_{k}")(h, *text_kv(self, cond, f"attn_{k}"))
        if self.level > 0:
            h = block(h.shape[-1], self.style, resample="up", name="up")(h, emb)
        return h


def has_attention(o: config.UNet, level: int, block: int, blocks: int) -> bool:
    """Tell whether attention follows residual block number `block` of `blocks` at a level."""
    return level in o.attention_levels() and (o.attention_every_block or block == blocks - 1)


def attention(o: config.UNet, channels: int, name: str) -> AttentionBlock:
    """Build the attention after a residual block of `channels`."""
    block = maybe_remat(AttentionBlock, o.remat, part="block")
    sizes = (channels // o.head_channels, o.head_channels, o.norm_groups, jnp.dtype(o.dtype))
    return block(*sizes, joined=o.text.kv == "concat", name=name)


def text_kv(level: nn.Module, cond: Conditioning, name: str) -> tuple[Any, Any]:
    """Text keys and values of a level's attention block, and their mask; None without."""
    if level.options.text.kv == "none":
        return None, None
    return cond.kv[f"{level.name}_{name}"], cond.text_mask


def list_text_layers(o: config.UNet) -> tuple[TextLayer, ...]:
    """Every attention block that reads the text, named as `text_of` asks for it."""
    if o.text.kv == "none":
        return ()
    layers = []
    for way, blocks in (("down", o.res_blocks), ("up", o.res_blocks + 1)):
        for level, mult in enumerate(o.channel_mult):
            names = [
                f"{way}_{level}_attn_{k}"
                for k in range(blocks)
                if has_attention(o, level, k, blocks)
            ]
            heads = o.channels * mult // o.head_channels
            layers += [TextLayer(name, heads, o.head_channels) for name in names]
    heads = o.channels * o.channel_mult[-1] // o.head_channels
    return (*layers, TextLayer("mid_attn_0", heads, o.head_channels))
