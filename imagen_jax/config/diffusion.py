"""Options of the diffusion process and of sampling (sections 2.2 to 2.4, appendix A)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from imagen_jax.config.deepfloyd import Betas
from imagen_jax.config.ranges import Finite, Positive, Range, Share, Steps, check_fields
from imagen_jax.config.validate import require

Predicts = Literal["eps", "x0", "v"]
# The last two are a network's that counts discrete time steps: `discrete_schedule` has their betas.
ScheduleKind = Literal[
    "cosine", "cosine_iddpm", "linear", "linear_approx", "cosine_betas", "linear_betas"
]
BETAS: dict[str, Betas] = {"cosine_betas": "cosine", "linear_betas": "linear"}
LossWeight = Literal["plain", "min_snr", "sigmoid", "edm"]
TimeSampling = Literal["uniform", "stratified", "edm"]
SamplerKind = Literal["ancestral", "ddim", "dpmpp_2m", "edm_heun"]
Curve = Callable[[Any], Any]
Spacing = Literal["time", "logsnr", "karras", "leading"]
Threshold = Literal["none", "static", "dynamic"]
Variance = Literal["fixed", "learned_range"]
Upsampling = Literal["half_pixel", "align_corners"]
KnownPixels = Literal["noised", "clean"]
TIME_STEPS = 1000  # of a schedule of discrete betas
TimeSteps = Annotated[tuple[int, ...], Range(low=0, high=TIME_STEPS - 1)]
Nats = Annotated[float, Range(low=-80, high=80)]  # e to them is finite in float32
SIGMOID_LIMIT = 10.0  # of logsnr, where that weight falls on an error other than v's
Interval = Annotated[tuple[float, float], Range(low=0, infinite=True)]
Percent = Annotated[float, Range(above=1, high=100, remedy="it is in percent, e.g. 99.5")]


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The noise schedule: how logsnr falls with time (section 2.2, appendix A)."""

    kind: ScheduleKind = "cosine"
    logsnr_min: Nats = -20.0
    logsnr_max: Nats = 20.0
    shift: Nats = 0.0  # added to logsnr: 2 * ln(64 / side) in simple diffusion
    # In place of `kind`, from Python: a function of times (b,) in [0, 1], 0 clean, to logsnr (b,)
    # in nats, falling, written in jax. Shift and limits apply to it as well.
    curve: Curve | None = None

    def __post_init__(self) -> None:
        check_fields(self, "noise schedule")
        require(
            self.logsnr_min < self.logsnr_max,
            f"noise schedule: logsnr_min={self.logsnr_min} is not below "
            f"logsnr_max={self.logsnr_max}",
        )
        require(
            self.curve is None or self.kind == "cosine",
            f"noise schedule: kind={self.kind!r} changes nothing beside a curve: leave it out",
        )


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """The forward process, what the network predicts and how its error is weighted (app. A)."""

    schedule: NoiseSchedule = NoiseSchedule()
    predicts: Predicts = "eps"
    time_sampling: TimeSampling = "uniform"  # stratified: one draw per 1/batch of [0, 1]
    # On the error of what the network predicts; sigmoid wants v, or logsnr limits of +-10.
    loss_weight: LossWeight = "plain"
    min_snr_gamma: Positive = 5.0  # largest weight of min_snr (arXiv:2303.09556)
    sigmoid_bias: Nats = -1.0  # the log-SNR above which sigmoid weighs less
    preconditioning: Literal["none", "edm"] = "none"  # edm: arXiv:2206.00364, table 1
    sigma_data: Positive = 0.5  # the data's standard deviation, of edm
    predict_residual: bool = False  # x0 minus the noised low-res input; off in the paper
    # Of the ancestral sampler's steps: `Sampler.stochasticity` sets it, or the network says where
    # its logarithm lies between the bounds (arXiv:2102.09672), which training then adds its
    # variational bound for.
    variance: Variance = "fixed"

    def __post_init__(self) -> None:
        check_fields(self, "diffusion")
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
        self._check_sigmoid()
        self._check_betas()

    @property
    def betas(self) -> Betas | None:
        """Betas of the discrete time steps that the network counts; None for other schedules."""
        return BETAS.get(self.schedule.kind)

    def _check_betas(self) -> None:
        """Refuse what discrete time steps, or other levels, have no meaning for."""
        kind = self.schedule.kind
        require(
            self.betas is None or (self.loss_weight != "sigmoid" and self.time_sampling != "edm"),
            f"diffusion: schedule.kind={kind!r} has 1,000 levels, each drawn as often as any "
            "other: leave loss_weight='sigmoid' and time_sampling='edm' to other schedules",
        )
        require(
            self.variance == "fixed" or self.betas is not None,
            f"diffusion: variance='learned_range' needs a schedule of discrete betas, "
            f"{' or '.join(BETAS)}, not schedule.kind={kind!r}",
        )

    def _check_sigmoid(self) -> None:
        low, high = self.schedule.logsnr_min, self.schedule.logsnr_max
        narrow = low >= -SIGMOID_LIMIT and high <= SIGMOID_LIMIT
        require(
            self.loss_weight != "sigmoid" or self.predicts == "v" or narrow,
            f"diffusion: loss_weight='sigmoid' with predicts={self.predicts!r} and logsnr from "
            f"{low:g} to {high:g} leaves the loss to a few draws with huge weights: use "
            f"predicts='v', or schedule.logsnr_min={-SIGMOID_LIMIT:g} and "
            f"schedule.logsnr_max={SIGMOID_LIMIT:g}",
        )


@dataclass(frozen=True, kw_only=True)
class NoiseConditioning:
    """Noise conditioning augmentation of the low-resolution input (section 2.4)."""

    schedule: NoiseSchedule = NoiseSchedule()
    max_level: Share = 1.0  # training draws aug_level from U(0, max_level)
    sample_level: Share = 0.1  # the paper's best images used 0.1 to 0.3
    upsampling: Upsampling = "half_pixel"  # where pixels lie; align_corners is DeepFloyd IF's

    def __post_init__(self) -> None:
        check_fields(self, "noise_conditioning")
        require(
            self.sample_level <= self.max_level,
            f"noise_conditioning: sample_level={self.sample_level} (aug_level) is above "
            f"max_level={self.max_level}, the most that training draws: give that or less",
        )


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Sampler of a stage (appendix A, section 2.3)."""

    kind: SamplerKind = "ancestral"
    steps: Steps = 256
    spacing: Spacing | None = None  # of noise levels; None: karras for edm_heun, time for others
    stochasticity: Share = 0.3  # gamma of appendix A; only the ancestral sampler reads it
    guidance_weight: Finite = 5.0  # 1 is off
    guidance_interval: Interval | None = None  # of sigma / alpha; None: everywhere
    guidance_rescale: Share = 0.0  # share of the way back to the conditional x0's contrast
    threshold: Threshold = "dynamic"
    percentile: Percent = 99.5
    threshold_max: Annotated[float, Range(low=1)] | None = None  # of the dynamic threshold
    # Discrete time steps from the noisiest on, in place of `steps` and `spacing`.
    timesteps: TimeSteps = ()
    # Noise is added by the last step, too, unless that is time step 0; else it returns its x0.
    final_noise: bool = False
    known_pixels: KnownPixels = "noised"  # of inpainting, in every step; clean is DeepFloyd IF's
    # Exponent of spacing karras, which alone reads it and its ends.
    edm_rho: Annotated[float, Range(low=1, high=100)] = 7.0
    edm_sigma_min: Positive = 0.002  # of spacing karras
    edm_sigma_max: Positive = 80.0  # of spacing karras, too

    def __post_init__(self) -> None:
        check_fields(self, "sampler")
        low, high = self.guidance_interval or (0.0, 1.0)
        require(
            low < high,
            f"sampler: guidance_interval={self.guidance_interval}: its low is not below its high",
        )
        require(
            self.threshold_max is None or self.threshold == "dynamic",
            f"sampler: threshold_max={self.threshold_max} needs threshold='dynamic'",
        )
        falls = all(a > b for a, b in itertools.pairwise(self.timesteps))
        require(falls, f"sampler: timesteps={self.timesteps} do not fall")
        if self.timesteps:
            object.__setattr__(self, "steps", len(self.timesteps))
        require(
            self.spacing != "leading" or self.steps <= TIME_STEPS,
            f"sampler: steps={self.steps}: spacing='leading' has {TIME_STEPS:,} time steps at most",
        )
        require(
            self.edm_sigma_min < self.edm_sigma_max,
            f"sampler: edm_sigma_min={self.edm_sigma_min} is not below "
            f"edm_sigma_max={self.edm_sigma_max}",
        )

    @property
    def is_discrete(self) -> bool:
        """True where steps are time steps of a schedule of discrete betas."""
        return bool(self.timesteps) or self.spacing == "leading"

    @property
    def first_time_step(self) -> int | None:
        """The noisiest of the discrete time steps; None where steps are others."""
        if self.timesteps:
            return self.timesteps[0]
        if not self.is_discrete:
            return None
        return (self.steps - 1) * (TIME_STEPS // self.steps)

    @property
    def ends_noisy(self) -> bool:
        """True if `final_noise` means anything: noise is added, and steps are time steps."""
        return self.kind == "ancestral" and self.is_discrete

    @property
    def levels(self) -> Spacing:
        """Spacing of the steps' noise levels: as asked, or as is usual for the rule."""
        return self.spacing or ("karras" if self.kind == "edm_heun" else "time")
