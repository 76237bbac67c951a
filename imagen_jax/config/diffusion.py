"""Options of the diffusion process and of sampling (sections 2.2 to 2.4, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from imagen_jax.config.checks import require

Predicts = Literal["eps", "x0", "v"]
Schedule = Literal["cosine", "cosine_iddpm", "linear", "linear_approx"]
LossWeight = Literal["plain", "min_snr", "sigmoid", "edm"]
TimeSampling = Literal["uniform", "stratified", "edm"]
SamplerKind = Literal["ancestral", "ddim", "dpmpp_2m", "edm_heun"]
Spacing = Literal["time", "logsnr", "karras"]
Threshold = Literal["none", "static", "dynamic"]


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """The forward process, what the network predicts and how its error is weighted (app. A)."""

    schedule: Schedule = "cosine"
    logsnr_min: float = -20.0
    logsnr_max: float = 20.0
    shift: float = 0.0  # added to logsnr: 2 * ln(64 / side) in simple diffusion
    predicts: Predicts = "eps"
    time_sampling: TimeSampling = "uniform"  # stratified: one draw per 1/batch of [0, 1]
    loss_weight: LossWeight = "plain"  # on the error of what the network predicts
    min_snr_gamma: float = 5.0
    sigmoid_bias: float = -1.0
    preconditioning: Literal["none", "edm"] = "none"  # edm: arXiv:2206.00364, table 1
    sigma_data: float = 0.5
    predict_residual: bool = False  # x0 minus the noised low-res input; off in the paper

    def __post_init__(self) -> None:
        require(
            self.logsnr_min < self.logsnr_max,
            f"diffusion: logsnr_min={self.logsnr_min} is not below logsnr_max={self.logsnr_max}",
        )
        require(
            self.preconditioning == "none" or self.predicts == "x0",
            f"diffusion: preconditioning='edm' yields x0, but predicts={self.predicts!r}",
        )
        require(
            not (self.predict_residual and self.predicts == "eps"),
            "diffusion: predict_residual changes nothing for predicts='eps'; use 'v' or 'x0'",
        )
        require(
            not (self.predict_residual and self.preconditioning == "edm"),
            "diffusion: predict_residual and preconditioning='edm' exclude each other",
        )


@dataclass(frozen=True, kw_only=True)
class NoiseConditioning:
    """Noise conditioning augmentation of the low-resolution input (section 2.4)."""

    schedule: Schedule = "cosine"
    max_level: float = 1.0  # training draws aug_level from U(0, max_level)
    sample_level: float = 0.1  # the paper's best pictures used 0.1 to 0.3

    def __post_init__(self) -> None:
        for name in ("max_level", "sample_level"):
            value = getattr(self, name)
            require(0.0 <= value <= 1.0, f"noise_conditioning: {name}={value} is not in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How a stage paints (appendix A, section 2.3)."""

    kind: SamplerKind = "ancestral"
    steps: int = 256
    spacing: Spacing | None = None  # of noise levels; None: karras for edm_heun, time for others
    stochasticity: float = 0.3  # gamma of appendix A; only the ancestral sampler reads it
    guidance_weight: float = 5.0  # 1 is off
    guidance_interval: tuple[float, float] | None = None  # of sigma / alpha; None: everywhere
    guidance_rescale: float = 0.0  # share of the way back to the conditional x0's contrast
    threshold: Threshold = "dynamic"
    percentile: float = 99.5
    edm_rho: float = 7.0  # only spacing karras reads the last three
    edm_sigma_min: float = 0.002
    edm_sigma_max: float = 80.0

    def __post_init__(self) -> None:
        require(self.steps > 0, f"sampler: steps={self.steps} must be positive")
        require(
            1.0 < self.percentile <= 100.0,
            f"sampler: percentile={self.percentile} is in percent, e.g. 99.5",
        )
        low, high = self.guidance_interval or (0.0, 1.0)
        require(
            0.0 <= low < high,
            f"sampler: guidance_interval={self.guidance_interval} is no (low, high), low >= 0",
        )
        require(
            0.0 <= self.guidance_rescale <= 1.0,
            f"sampler: guidance_rescale={self.guidance_rescale} is not in [0, 1]",
        )
        require(
            0.0 <= self.stochasticity <= 1.0,
            f"sampler: stochasticity={self.stochasticity} is not in [0, 1]",
        )
        require(
            self.spacing is None or self.spacing in get_args(Spacing),
            f"sampler: spacing={self.spacing!r} is none of {', '.join(get_args(Spacing))}",
        )

    @property
    def levels(self) -> Spacing:
        """How the steps' noise levels are spaced: as asked, or as is usual for the rule."""
        return self.spacing or ("karras" if self.kind == "edm_heun" else "time")
