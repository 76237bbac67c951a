"""Options of DeepFloyd IF's networks, as diffusers' `unet/config.json` has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from imagen_jax import limits
from imagen_jax.config.models import Dtype, Remat
from imagen_jax.config.ranges import Factor, Positive, Range, Width, check_fields
from imagen_jax.config.validate import require, require_divides

Activation = Literal["gelu", "silu"]  # gelu: the exact one, by erf
Betas = Literal["cosine", "linear"]
Keys = Literal["image_and_text", "text"]  # the keys of attention

TEXT_NORM_GROUPS = 32  # of the norm before text keys and values, whatever `norm_groups` is


@dataclass(frozen=True, kw_only=True)
class DeepFloydLevel:
    """The blocks of one side: `res_blocks` on the way down, and one more on the way up."""

    channels: Width
    res_blocks: Factor = 3
    attention: Keys | None = None  # after each residual block
    head_channels: Width = 64

    def __post_init__(self) -> None:
        check_fields(self, "level")


@dataclass(frozen=True, kw_only=True)
class DeepFloydUNet:
    """DeepFloyd IF's U-Net: ADM's blocks, discrete time steps, a learned variance."""

    levels: tuple[DeepFloydLevel, ...]  # the finest first
    text_channels: Width  # of the text that attention reads; "cross_attention_dim"
    cond_channels: Width  # width of the time embedding and of the pooled text
    middle_attention: Keys = "image_and_text"
    middle_head_channels: Width = 64
    pool_heads: Width | None = 64  # of the attention that pools the text; None: it is not pooled
    text_norm: bool = True  # a group norm over tokens and channels before text keys and values
    activation: Activation = "gelu"
    emb_activation: Activation | None = None  # of the sum of embeddings, once
    activate_emb_in_blocks: bool = True  # the same in every block
    norm_groups: Width = 32
    norm_epsilon: Positive = 1e-5
    residual_divisor: Positive = 1.0  # of a residual block's sum; stage II: 1.4142271248762552
    middle_residual_divisor: Positive = 1.0
    reads_low_res: bool = False  # and the level of its noise
    learned_variance: bool = True  # three more channels say where it lies in its range
    betas: Betas = "cosine"  # whose time steps the network counts
    cosine_first: bool = True  # in the embedding of a time step; then sines
    frequency_shift: Annotated[int, Range(low=0, high=1)] = (
        0  # the last frequency is that of step half - shift
    )
    remat: Remat = "none"
    dtype: Dtype = "float32"  # of activations; parameters, norms and softmax stay float32

    def __post_init__(self) -> None:
        check_fields(self, "deepfloyd_unet")
        require(bool(self.levels), "deepfloyd_unet: levels is empty")
        blocks = sum(level.res_blocks for level in self.levels)
        limits.NETWORK_BLOCKS.check(blocks, "deepfloyd_unet: the levels have")
        for level in self.levels:
            require_divides(self.norm_groups, level.channels, "norm_groups", "channels of a level")
            if level.attention:
                require_divides(
                    level.head_channels, level.channels, "head_channels", "channels of a level"
                )
        require_divides(
            self.middle_head_channels,
            self.levels[-1].channels,
            "middle_head_channels",
            "channels of the last level",
        )
        if self.text_norm:
            require_divides(
                TEXT_NORM_GROUPS, self.text_channels, "the text norm's groups", "text_channels"
            )
        half = self.levels[0].channels // 2
        require(
            half > self.frequency_shift,
            f"deepfloyd_unet: frequency_shift={self.frequency_shift} leaves no frequency of the "
            f"{half} of {self.levels[0].channels} channels",
        )

    def multiple(self) -> int:
        """Return what an image's sides must be multiples of."""
        return 2 ** (len(self.levels) - 1)
