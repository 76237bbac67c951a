"""Samplers: one function per step rule, one scan over any of them (appendix A).

A rule gets a `Step` and returns z_s. Adding one is a function here and a line in `_RULES`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from imagen_jax import config, rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.prediction import from_x0, to_x0
from imagen_jax.diffusion.schedules import alpha_sigma
from imagen_jax.types import Denoise, Image, Keys, LogSNR, RandomKey, Scale


class Step(NamedTuple):
    """What a rule may use to go from z_t to z_s: arrays (b, h, w, c), levels and keys (b,)."""

    z_t: jax.Array
    x0: jax.Array  # denoise(z_t, logsnr_t): guided and thresholded
    x0_before: jax.Array  # x0 of the step before; of this step when it is the first
    logsnr_before: jax.Array  # its level; equal to logsnr_t when this step is the first
    logsnr_t: jax.Array
    logsnr_s: jax.Array
    keys: jax.Array  # of this step


def sample(
    denoise: Denoise,
    keys: Keys,
    *,
    shape: tuple[int, int, int],
    sampler: config.Sampler,
    diffusion: config.Diffusion,
) -> Image:
    """Images painted from pure noise; image i depends on keys[i] and on no other image's.

    Shapes: keys (b,); shape (h, w, c); result (b, h, w, c), float32.
    `denoise` is called once a step (twice by "edm_heun"); the last step returns its x0 as it is.
    """
    levels = level_grid(sampler, diffusion)
    _, sigma = alpha_sigma(levels[:1])
    noise = sigma * rng.normal_each(_fold(keys, "start", 0), shape)
    before = jnp.concatenate([levels[:1], levels[:-2]])
    spans = (jnp.arange(sampler.steps), before, levels[:-1], levels[1:])

    def body(carry: tuple[Image, Image], span: tuple[jax.Array, ...]):
        z, x0_before = carry
        index, *three = span
        logsnr_before, logsnr_t, logsnr_s = (jnp.broadcast_to(x, keys.shape) for x in three)
        x0 = denoise(z, logsnr_t).astype(jnp.float32)
        x0_before = jnp.where(index == 0, x0, x0_before)
        now = _fold(keys, "step", index)
        step = Step(z, x0, x0_before, logsnr_before, logsnr_t, logsnr_s, now)
        last = index == sampler.steps - 1
        z = jax.lax.cond(last, lambda: x0, lambda: _RULES[sampler.kind](step, denoise, sampler))
        return (z, x0), None

    (result, _), _ = jax.lax.scan(body, (noise, noise), spans)
    return result


def level_grid(sampler: config.Sampler, diffusion: config.Diffusion) -> LogSNR:
    """The levels that a sampler visits, (steps + 1,): those of times 1 to 0, evenly spaced.

    "edm_heun" has its own, whose final entry stands for no noise at all and is never used.
    Source: EDM (arXiv:2206.00364), equation 5.
    """
    if sampler.kind != "edm_heun":
        return schedules.logsnr(jnp.linspace(1.0, 0.0, sampler.steps + 1), diffusion=diffusion)
    first, last = (
        x ** (1 / sampler.edm_rho) for x in (sampler.edm_sigma_max, sampler.edm_sigma_min)
    )
    sigma_edm = jnp.linspace(first, last, sampler.steps) ** sampler.edm_rho
    return -2 * jnp.log(jnp.append(sigma_edm, sigma_edm[-1]))


def ddpm_step(step: Step, denoise: Denoise, sampler: config.Sampler) -> Image:
    """Ancestral sampling with the variance interpolated by gamma (equation 6)."""
    mean, std = ddpm_mean_std(step, sampler.stochasticity)
    return mean + std * rng.normal_each(step.keys, step.z_t.shape[1:])


def ddpm_mean_std(step: Step, stochasticity: float) -> tuple[Image, Scale]:
    """Mean and standard deviation of the ancestral step.

    The variance is a geometric mean of the posterior's (gamma 0) and the transition's (gamma 1).
    """
    alpha_t, _ = alpha_sigma(step.logsnr_t)
    alpha_s, sigma_s = alpha_sigma(step.logsnr_s)
    kept = jnp.exp(step.logsnr_t - step.logsnr_s)[:, None, None, None]
    lost = -jnp.expm1(step.logsnr_t - step.logsnr_s)[:, None, None, None]
    mean = kept * (alpha_s / alpha_t) * step.z_t + lost * alpha_s * step.x0
    small = lost * sigma_s**2
    large = schedules.transition_variance(step.logsnr_s, step.logsnr_t)
    return mean, jnp.sqrt(small ** (1 - stochasticity) * large**stochasticity)


def ddim_step(step: Step, denoise: Denoise, sampler: config.Sampler) -> Image:
    """DDIM (equation 5): eps is derived again from the thresholded x0, never kept."""
    eps = from_x0(step.x0, step.z_t, step.logsnr_t, predicts="eps")
    return schedules.add_noise(step.x0, eps, step.logsnr_s)


def dpmpp_2m_step(step: Step, denoise: Denoise, sampler: config.Sampler) -> Image:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2), of first order on the first step.

    Its lambda is half a logsnr, h one step of it, and r the step before over this one.
    """
    _, sigma_t = alpha_sigma(step.logsnr_t)
    alpha_s, sigma_s = alpha_sigma(step.logsnr_s)
    h_before = (step.logsnr_t - step.logsnr_before)[:, None, None, None] / 2
    h = (step.logsnr_s - step.logsnr_t)[:, None, None, None] / 2
    slope = jnp.where(h_before > 0, h / (2 * jnp.where(h_before > 0, h_before, 1.0)), 0.0)  # 1 / 2r
    estimate = (1 + slope) * step.x0 - slope * step.x0_before
    return (sigma_s / sigma_t) * step.z_t - alpha_s * jnp.expm1(-h) * estimate


def heun_step(step: Step, denoise: Denoise, sampler: config.Sampler) -> Image:
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


def _fold(keys: Keys, name: str, index: int | jax.Array) -> Keys:
    """Each image's key called `name` at `index`."""

    def one(key: RandomKey) -> RandomKey:
        return rng.fold(key, name, index)

    return jax.vmap(one)(keys)


_RULES = {
    "ancestral": ddpm_step,
    "ddim": ddim_step,
    "dpmpp_2m": dpmpp_2m_step,
    "edm_heun": heun_step,
}
