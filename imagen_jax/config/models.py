"""Options of the two networks (sections 2.5, B.1; appendices D.3, F).

Where the paper is silent the default is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from imagen_jax import limits
from imagen_jax.config.ranges import (
    Count,
    Factor,
    Factors,
    Positive,
    Range,
    ShareBelowOne,
    Sides,
    Whole,
    Width,
    check_fields,
)
from imagen_jax.config.validate import require, require_divides

Positions = Annotated[int, Range(low=0, high=2**16)]
Patch = Annotated[int, Range(low=1, high=2**8)]  # pixels
Dtype = Literal["float32", "bfloat16"]
TextKV = Literal["concat", "cross", "none"]
ResidualScaling = Literal["sum", "shortcut", "long_skip"]
# What the backward pass recomputes. none: nothing; convs: all of a block but its convolutions and
# matrix products; block: each block from its input; level: each level from its input.
Remat = Literal["none", "convs", "block", "level"]


@dataclass(frozen=True, kw_only=True)
class TextConditioning:
    """Text conditioning of a network (section 2.5, appendix D.3.1)."""

    kv: TextKV = "concat"  # concat: text keys join self-attention; cross: a layer of its own
    norm: bool = True  # LayerNorm on the text, which the paper found to help a lot
    pool: Literal["attention", "mean", "none"] = "attention"
    pool_query: Literal["learned", "mean_plus_learned"] = "learned"
    bottleneck: Width | None = None  # project the text to this width first
    positions: Positions = 0  # learned positions added to the text, at least its length; 0: none
    refiner_layers: Whole = 0  # transformer layers over the text before it is read; 0 in the paper
    # What stands for "no caption": zeros; a learned row; or the encoding of the empty caption,
    # which training takes from its dataset and keeps with the weights.
    null: Literal["zero", "learned", "empty_prompt"] = "zero"
    null_mask: Literal["first_token", "all_ones"] = "first_token"  # its mask, never the caption's

    def __post_init__(self) -> None:
        check_fields(self, "text")
        limits.NETWORK_BLOCKS.check(self.refiner_layers, "text: refiner_layers has")
        require(
            self.kv != "none" or self.pool != "none",
            "text: kv='none' with pool='none' would ignore the text; choose one of them",
        )
        require(
            self.null != "empty_prompt" or self.null_mask == "first_token",
            f"text: null='empty_prompt' is one token, its end of sentence, so null_mask="
            f"{self.null_mask!r} would show what is none: set it to 'first_token'",
        )
        require(
            self.pool_query == "learned" or self.pool == "attention",
            f"text: pool_query={self.pool_query!r} needs pool='attention', got {self.pool!r}",
        )


@dataclass(frozen=True, kw_only=True)
class UNet:
    """The base network: ADM-style, BigGAN resampling, one attention after each residual block."""

    channels: Width = 512  # "embed_dim" in appendix F.1
    channel_mult: Factors = (1, 2, 3, 4)
    res_blocks: Count = 3
    attention_at: Sides = (32, 16, 8)  # sides that attend, the coarsest level's included
    attention_every_block: bool = True  # False: once per level
    head_channels: Width = 64
    cond_channels: Width | None = None  # width of the time embedding; None: 4 * channels
    time_embed: Literal["cosine_time", "logsnr"] = "cosine_time"
    dropout: ShareBelowOne = 0.0
    norm_groups: Width = 32
    residual_scaling: ResidualScaling = "sum"
    residual_scale: Positive = 1.0
    zero_init_residual: bool = True
    patch: Patch = 1  # space-to-depth at the entrance (simple diffusion); 1 in the paper
    remat: Remat = "none"
    dtype: Dtype = "float32"  # of activations; parameters, norms and softmax stay float32
    text: TextConditioning = TextConditioning()

    def __post_init__(self) -> None:
        check_fields(self, "unet")
        sides = len(self.channel_mult)
        limits.NETWORK_BLOCKS.check(
            self.res_blocks * sides,
            f"unet: res_blocks={self.res_blocks} in each of {sides} levels of channel_mult makes",
        )
        require(
            sides > 0, "unet: channel_mult is empty: give a multiple of channels for each level"
        )
        for mult in self.channel_mult:
            require_divides(
                self.norm_groups, self.channels * mult, "norm_groups", "channels*channel_mult"
            )
        if self.text.pool == "attention":
            require_divides(self.head_channels, self.width_cond, "head_channels", "cond_channels")
        unknown = sorted(set(self.attention_at) - set(self._levels_by_side()))
        require(
            not unknown,
            f"unet: attention_at={self.attention_at} names {unknown}, but from its smallest side, "
            f"the coarsest level's, sides double over the {sides} levels of channel_mult: "
            f"{[*self._levels_by_side()]}",
        )
        for level in self.attention_levels():
            width = self.channels * self.channel_mult[level]
            require_divides(self.head_channels, width, "head_channels", "channels*channel_mult")
        require(
            self.text.kv == "none" or bool(self.attention_at),
            f"unet: text.kv={self.text.kv!r} needs attention, but attention_at is empty",
        )

    @property
    def width_cond(self) -> int:
        """Width of the time embedding and of the pooled text."""
        return self.cond_channels or 4 * self.channels

    def attention_levels(self) -> tuple[int, ...]:
        """Levels that attend, 0 the finest; the coarsest has the smallest of these sides."""
        levels = self._levels_by_side()
        return tuple(sorted(levels[side] for side in self.attention_at))

    def _levels_by_side(self) -> dict[int, int]:
        """The level of each side, if the coarsest level's side is the smallest that attends."""
        coarsest = len(self.channel_mult) - 1
        smallest = min(self.attention_at, default=0)
        return {smallest * 2**i: coarsest - i for i in range(coarsest + 1)} if smallest else {}

    def feature_sides(self, side: int) -> tuple[int, ...]:
        """Sides of the feature maps, one per level, for images of `side` pixels."""
        return tuple(side // self.patch // 2**i for i in range(len(self.channel_mult)))

    def multiple(self) -> int:
        """Return what an image's sides must be multiples of."""
        return self.patch * 2 ** (len(self.channel_mult) - 1)


@dataclass(frozen=True, kw_only=True)
class Level:
    """One DBlock and its mirrored UBlock of the Efficient U-Net."""

    channels: Width
    blocks: Count
    stride: Annotated[int, Range(low=1, high=2)] = 2
    self_attention: bool = False
    text_attention: bool = False  # with self_attention: joined keys; alone: cross-attention

    def __post_init__(self) -> None:
        check_fields(self, "level")


PAPER_LEVELS = (  # appendix F.2: reading A of the spec, four stride-2 blocks below a 128-wide stem
    Level(channels=128, blocks=2),
    Level(channels=256, blocks=4),
    Level(channels=512, blocks=8),
    Level(channels=1024, blocks=8, self_attention=True, text_attention=True),
)


@dataclass(frozen=True, kw_only=True)
class EfficientUNet:
    """The super-resolution network: downsample first, upsample last, depth at low resolution."""

    stem_channels: Width = 128
    levels: tuple[Level, ...] = PAPER_LEVELS
    cond_channels: Width = 512
    heads: Width = 8
    attn_hidden_mult: Factor = 2  # width of queries, keys and values over channels
    attn_ffn: bool = False  # the other reading: that of a feed-forward layer; queries etc. keep C
    pool_head_channels: Width = 64
    time_embed: Literal["cosine_time", "logsnr"] = "cosine_time"
    film_per_block: bool = True  # scale-shift in every residual block; False: once per level
    skip_merge: Literal["concat", "add"] = "concat"
    stem_skip: bool = True
    upsample_channels: Literal["own", "next"] = "own"
    upsample: Literal["nearest", "depth_to_space", "transposed"] = "nearest"
    last_upsample: Literal["nearest", "depth_to_space", "transposed"] = "depth_to_space"
    head: Literal["norm_conv", "dense"] = "norm_conv"
    dropout: ShareBelowOne = 0.0
    norm_groups: Width = 32
    residual_scaling: ResidualScaling = "sum"
    residual_scale: Positive = 2**-0.5
    zero_init_residual: bool = False
    remat: Remat = "none"
    dtype: Dtype = "float32"
    text: TextConditioning = TextConditioning()

    def __post_init__(self) -> None:
        check_fields(self, "efficient_unet")
        require(bool(self.levels), "efficient_unet: levels is empty")
        blocks = sum(level.blocks for level in self.levels)
        limits.NETWORK_BLOCKS.check(blocks, "efficient_unet: the levels have")
        require_divides(self.norm_groups, self.stem_channels, "norm_groups", "stem_channels")
        width = "channels" if self.attn_ffn else "channels*attn_hidden_mult"
        for level in self.levels:
            require_divides(self.norm_groups, level.channels, "norm_groups", "channels of a level")
            if level.self_attention or level.text_attention:
                require_divides(
                    self.heads, self.attention_width(level), "heads", f"{width} of a level"
                )
        if self.text.pool == "attention":
            heads = self.pool_head_channels
            require_divides(heads, self.cond_channels, "pool_head_channels", "cond_channels")
        reads = any(level.text_attention for level in self.levels)
        require(
            reads == (self.text.kv != "none"),
            f"efficient_unet: text.kv={self.text.kv!r} but text_attention is "
            f"{'on' if reads else 'off'} in every level",
        )
        require(
            self.text.kv != "concat"
            or all(x.self_attention for x in self.levels if x.text_attention),
            "efficient_unet: text.kv='concat' needs self_attention wherever text_attention is on",
        )

    def attention_width(self, level: Level) -> int:
        """Width of queries, keys and values at a level."""
        return level.channels * (1 if self.attn_ffn else self.attn_hidden_mult)

    def multiple(self) -> int:
        """Return what an image's sides must be multiples of."""
        return math.prod(level.stride for level in self.levels)
