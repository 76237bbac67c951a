"""Step rules of the samplers, one function each, and the numbers that they read (appendix A).

A rule gets `StepInputs` and returns z_s. Adding one is a function here and a line in `RULES`; one
from outside is handed to `sampling_loop.sample`, or to `Imagen.with_step_rule`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from imagen_jax import config, rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.prediction import from_x0, to_x0
from imagen_jax.diffusion.schedules import alpha_sigma
from imagen_jax.types import Denoise, Image, LogSNR

TINY = 1e-20  # the smallest variance, whose logarithm is taken


class SamplerParams(NamedTuple):
    """Scalars that a compiled sampler takes as arguments, numpy or jax: changing one compiles
    nothing.

    A field with the name of one of `config.Sampler` has its value and its meaning. The steps
    `first`, ..., `last` - 1 of `steps` are made.
    """

    seed: Any  # uint32
    steps: Any  # int32, as first, last and num_resamples
    first: Any
    last: Any
    num_resamples: Any  # of each step where pixels are known (arXiv:2201.09865)
    stochasticity: Any  # float32 from here on
    guidance_weight: Any
    guidance_low: Any  # the interval of sigma / alpha; only a program that has one reads it
    guidance_high: Any
    guidance_rescale: Any

    @classmethod
    def from_config(
        cls,
        sampler: config.Sampler,
        *,
        seed: int = 0,
        strength: float = 1.0,
        num_resamples: int = 1,
    ) -> SamplerParams:
        """The numbers of `sampler`, for the last `strength` of its steps."""
        low, high = sampler.guidance_interval or (0.0, np.inf)
        return cls(
            seed=np.uint32(seed),
            first=np.int32(sampler.steps - _kept(sampler, strength)),
            last=np.int32(sampler.steps),
            num_resamples=np.int32(num_resamples),
            guidance_low=np.float32(low),
            guidance_high=np.float32(high),
            **{name: _scalar(sampler, name) for name in TRACED},
        )


def _kept(sampler: config.Sampler, strength: float) -> int:
    """Return the number of the last steps that a strength keeps; of listed ones, rounded down."""
    share = strength * sampler.steps
    return int(share) if sampler.is_discrete else round(share)


# Fields of `config.Sampler` that no compiled program depends on.
TRACED = frozenset(SamplerParams._fields) & {f.name for f in dataclasses.fields(config.Sampler)}


def _scalar(sampler: config.Sampler, name: str) -> np.generic:
    """A field's value, as the kind of number that its default is."""
    dtype = np.int32 if isinstance(getattr(config.Sampler, name), int) else np.float32
    return dtype(getattr(sampler, name))


class StepInputs(NamedTuple):
    """Inputs of a rule, which goes from z_t to z_s: arrays (b, h, w, c), levels and keys (b,)."""

    z_t: jax.Array
    x0: jax.Array  # denoise(z_t, logsnr_t): guided and thresholded
    x0_prev: jax.Array  # x0 of the previous step; of this step when it is the first
    logsnr_prev: jax.Array  # its level; equal to logsnr_t when this step is the first
    logsnr_t: jax.Array
    logsnr_s: jax.Array
    keys: jax.Array  # of this step
    stochasticity: jax.Array  # a scalar, or (b, h, w, c) where the network predicts it


class Denoised(NamedTuple):
    """The result of a denoiser whose network predicts the variance of an ancestral step, too."""

    x0: jax.Array  # (b, h, w, c)
    variance_share: jax.Array  # (b, h, w, c): where its logarithm lies, 0 smallest to 1 largest


StepRule = Callable[[StepInputs, Denoise], Image]


def ancestral_step(step: StepInputs, denoise: Denoise) -> Image:
    """Ancestral sampling with the variance interpolated by gamma (equation 6)."""
    mean, std = ancestral_mean_std(step)
    return mean + std * rng.normal_each(step.keys, step.z_t.shape[1:])


def ancestral_mean_std(step: StepInputs) -> tuple[Image, Float32[Array, "b _ _ _"]]:
    """Mean and standard deviation of the ancestral step."""
    return posterior_mean_std(
        step.z_t, step.x0, step.logsnr_t, step.logsnr_s, stochasticity=step.stochasticity
    )


def posterior_mean_std(
    z_t: Image, x0: Image, logsnr_t: LogSNR, logsnr_s: LogSNR, *, stochasticity: Any
) -> tuple[Image, Float32[Array, "b _ _ _"]]:
    """Mean and standard deviation of z_s given z_t and the clean image.

    The variance is a geometric mean of the posterior's (gamma 0) and the transition's (gamma 1).
    Shapes: images (b, h, w, c); levels (b,); stochasticity, gamma, a scalar or as the images.
    """
    gamma = stochasticity
    alpha_t, _ = alpha_sigma(logsnr_t)
    alpha_s, sigma_s = alpha_sigma(logsnr_s)
    kept = jnp.exp(logsnr_t - logsnr_s)[:, None, None, None]
    lost = -jnp.expm1(logsnr_t - logsnr_s)[:, None, None, None]
    mean = kept * (alpha_s / alpha_t) * z_t + lost * alpha_s * x0
    small = jnp.maximum(lost * sigma_s**2, TINY)
    large = schedules.transition_variance(logsnr_s, logsnr_t)
    return mean, jnp.sqrt(small ** (1 - gamma) * large**gamma)


def ddim_step(step: StepInputs, denoise: Denoise) -> Image:
    """DDIM (equation 5): eps is derived again from the thresholded x0, never kept."""
    eps = from_x0(step.x0, step.z_t, step.logsnr_t, predicts="eps")
    return schedules.add_noise(step.x0, eps, step.logsnr_s)


def dpmpp_2m_step(step: StepInputs, denoise: Denoise) -> Image:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2), of first order on the first step.

    Its lambda is half a logsnr, h one step of it, and r the step before over this one.
    """
    _, sigma_t = alpha_sigma(step.logsnr_t)
    alpha_s, sigma_s = alpha_sigma(step.logsnr_s)
    h_prev = (step.logsnr_t - step.logsnr_prev)[:, None, None, None] / 2
    h = (step.logsnr_s - step.logsnr_t)[:, None, None, None] / 2
    slope = jnp.where(h_prev > 0, h / (2 * jnp.where(h_prev > 0, h_prev, 1.0)), 0.0)  # 1 / 2r
    estimate = (1 + slope) * step.x0 - slope * step.x0_prev
    return (sigma_s / sigma_t) * step.z_t - alpha_s * jnp.expm1(-h) * estimate


def heun_step(step: StepInputs, denoise: Denoise) -> Image:
    """EDM's Heun step (arXiv:2206.00364, algorithm 1): the mean slope of both ends.

    In EDM's coordinates x = z / alpha and sigma_edm = sigma / alpha the slope dx / dsigma_edm is
    eps, so that the step is DDIM with the mean of two eps.
    """
    eps_t = from_x0(step.x0, step.z_t, step.logsnr_t, predicts="eps")
    euler = schedules.add_noise(step.x0, eps_t, step.logsnr_s)
    x0_s = denoise(euler, step.logsnr_s).astype(jnp.float32)
    eps = (eps_t + from_x0(x0_s, euler, step.logsnr_s, predicts="eps")) / 2
    x0 = to_x0(eps, step.z_t, step.logsnr_t, predicts="eps")
    return schedules.add_noise(x0, eps, step.logsnr_s)


RULES: dict[str, StepRule] = {
    "ancestral": ancestral_step,
    "ddim": ddim_step,
    "dpmpp_2m": dpmpp_2m_step,
    "edm_heun": heun_step,
}
