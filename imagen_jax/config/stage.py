"""One diffusion model of the cascade: network, diffusion process, sampler (section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass

from imagen_jax.config.deepfloyd import DeepFloydUNet
from imagen_jax.config.diffusion import Diffusion, NoiseConditioning, Sampler
from imagen_jax.config.distillation import Distillation
from imagen_jax.config.models import EfficientUNet, UNet
from imagen_jax.config.names import check_name
from imagen_jax.config.ranges import Share, Side, check_fields
from imagen_jax.config.validate import require, require_divides


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One diffusion model of the cascade."""

    name: str
    size: Side  # size of the images it samples
    # side of its low-resolution input; None: it samples from text alone
    low_size: Side | None = None
    crop: Side | None = None  # train on crops of this side
    model: UNet | EfficientUNet | DeepFloydUNet
    diffusion: Diffusion = Diffusion()
    noise_conditioning: NoiseConditioning = NoiseConditioning()  # super-resolution stages only
    sampler: Sampler = Sampler()
    text_drop_rate: Share = 0.1  # share of captions nulled in training, for guidance
    distillation: Distillation | None = None  # of a network that few steps sample

    def __post_init__(self) -> None:
        where = f"stage {check_name(self.name, 'stage: name')}"
        check_fields(self, where)
        for side, what in ((self.size, "size"), (self.train_side, "crop")):
            require_divides(
                self.model.multiple(), side, "the network's total stride", f"{where}: {what}"
            )
        require(
            self.is_super_resolution or not self.diffusion.predict_residual,
            f"{where}: predict_residual needs a low-resolution input (low_size)",
        )
        require(
            self.diffusion.variance == "fixed"
            or (isinstance(self.model, DeepFloydUNet) and self.model.learned_variance),
            f"{where}: diffusion.variance={self.diffusion.variance!r}, but the network predicts no "
            "variance: only a deepfloyd_unet with learned_variance does",
        )
        self._check_super_resolution(where)
        self._check_time(where)
        if isinstance(self.model, UNet):
            self._check_attention(self.model, where)

    def _check_time(self, where: str) -> None:
        """Refuse discrete time steps where the network has continuous time, and vice versa."""
        if self.distillation is not None:
            require(
                self.diffusion.betas is None,
                f"{where}: distillation is of networks that have continuous time, not of "
                f"diffusion.schedule.kind={self.diffusion.schedule.kind!r}",
            )
            self.distillation.require_sampler(self.sampler, where)
        if isinstance(self.model, DeepFloydUNet):
            require(
                self.diffusion.betas in (None, self.model.betas),
                f"{where}: diffusion.schedule.kind={self.diffusion.schedule.kind!r}, but the "
                f"network counts time steps of model.betas={self.model.betas!r}: give both the "
                "same",
            )
        require(
            self.diffusion.betas is not None or not self.sampler.is_discrete,
            f"{where}: {'timesteps' if self.sampler.timesteps else 'spacing=leading'} is for "
            "networks that count time steps, DeepFloyd IF's, and this one has continuous time: "
            "use spacing=time, logsnr or karras and a number of steps",
        )

    def _check_super_resolution(self, where: str) -> None:
        if self.low_size is None:
            require(self.crop is None, f"{where}: crop={self.crop} needs low_size")
            return
        require_divides(self.low_size, self.size, "low_size", f"{where}: size")
        require(self.low_size < self.size, f"{where}: low_size is not below size={self.size}")
        require(
            self.train_side <= self.size,
            f"{where}: crop={self.crop} is larger than size={self.size}",
        )
        require_divides(
            self.factor, self.train_side, "the scale factor size/low_size", f"{where}: crop"
        )

    def _check_attention(self, model: UNet, where: str) -> None:
        sides, attending = model.feature_sides(self.train_side), model.attention_at
        given = f"{'crop' if self.crop else 'size'}={self.train_side}"
        require(
            set(attending) <= set(sides),
            f"{where}: attention_at={attending} names sides that no level has at {given}: {sides}",
        )
        require(
            not attending or min(attending) == sides[-1],
            f"{where}: attention_at={attending} lacks {sides[-1]}, the coarsest level's "
            f"side at {given}",
        )

    @property
    def is_super_resolution(self) -> bool:
        return self.low_size is not None

    @property
    def is_guided(self) -> bool:
        """Whether a sampler's step has two passes, with the text and without it."""
        return self.distillation is None and self.sampler.guidance_weight != 1.0

    @property
    def has_guidance_input(self) -> bool:
        """Whether the guidance weight is an input of the network."""
        return self.distillation is not None and self.distillation.has_guidance_input

    @property
    def factor(self) -> int:
        """Upscaling factor; 1 for a base model."""
        return 1 if self.low_size is None else self.size // self.low_size

    @property
    def train_side(self) -> int:
        """Side of a training image."""
        return self.crop or self.size
