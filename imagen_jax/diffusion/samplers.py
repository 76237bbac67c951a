"""Samplers: one function per step rule, one loop over any of them (appendix A).

A rule gets a `Step` and returns z_s. Adding one is a function here and a line in `_RULES`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from imagen_jax import config, rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.dials import SamplerParams
from imagen_jax.diffusion.prediction import from_x0, to_x0
from imagen_jax.diffusion.schedules import alpha_sigma
from imagen_jax.diffusion.spacing import logsnr_at
from imagen_jax.types import Denoise, Image, Keys, LogSNR, RandomKey, Scale


class StepInputs(NamedTuple):
    """What a rule may use to go from z_t to z_s: arrays (b, h, w, c), levels and keys (b,)."""

    z_t: jax.Array
    x0: jax.Array  # denoise(z_t, logsnr_t): guided and thresholded
    x0_before: jax.Array  # x0 of the step before; of this step when it is the first
    logsnr_before: jax.Array  # its level; equal to logsnr_t when this step is the first
    logsnr_t: jax.Array
    logsnr_s: jax.Array
    keys: jax.Array  # of this step
    stochasticity: jax.Array  # a scalar


class SamplerState(NamedTuple):
    """A painting between two steps; images (b, h, w, c), float32."""

    keys: jax.Array  # (b,)
    z: jax.Array
    x0: jax.Array  # what the last step took the picture for; when all are made, the picture
    made: jax.Array  # steps so far, an int32 scalar


class KnownPixels(NamedTuple):
    """Pixels that the picture has to have: pixels (b, h, w, c), mask (b, h, w, 1), true there."""

    pixels: jax.Array
    mask: jax.Array


def init_state(
    keys: Keys,
    dials: SamplerParams,
    picture: Image,
    *,
    sampler: config.Sampler,
    diffusion: config.Diffusion,
) -> SamplerState:
    """The state before step `dials.first`: pure noise if it is the first of all, else `picture`
    with the noise of that level.

    Shapes: keys (b,); picture (b, h, w, c), read for its shape alone where the noise is pure.
    Image i's noise depends on keys[i] alone.
    """
    level = logsnr_at(_row(dials.first), dials.steps, sampler=sampler, diffusion=diffusion)
    eps = rng.normal_each(_fold(keys, "start", 0), picture.shape[1:])
    alpha, sigma = alpha_sigma(level)
    z = jnp.where(dials.first > 0, alpha, 0.0) * picture + sigma * eps
    return SamplerState(keys, z, picture, jnp.int32(0))


def sample(
    denoise: Denoise,
    state: SamplerState,
    dials: SamplerParams,
    *,
    sampler: config.Sampler,
    diffusion: config.Diffusion,
    known: KnownPixels | None = None,
) -> SamplerState:
    """The state after the steps `dials.first` to `dials.last`; image i depends on its key alone.

    `spacing.py` has the steps' levels. `denoise` is called once a step (twice by "edm_heun"); the
    last step of all returns its x0 as it is. Known pixels are noised anew for every step and exact
    in its x0; every step is made `dials.repeats` times, the noise between its levels put back
    before it is made again.
    Source: RePaint (arXiv:2201.09865), algorithm 1. Differs from the paper: x0 has the known pixels
    too, so that they keep to their level within a step, as well.
    """

    seen = _with_known(denoise, known)

    def level(index: jax.Array) -> LogSNR:
        found = logsnr_at(_row(index), dials.steps, sampler=sampler, diffusion=diffusion)
        return jnp.broadcast_to(found, state.keys.shape)

    def body(index: jax.Array, now: SamplerState) -> SamplerState:
        here, there = level(index), level(index + 1)
        before = jnp.where(now.made == 0, here, level(index - 1))
        last = index == dials.steps - 1

        def once(z: Image, keys: Keys) -> tuple[Image, Image]:
            if known is not None:
                z = jnp.where(known.mask, _noised(known.pixels, keys, here), z)
            x0 = seen(z, here)
            x0_before = jnp.where(now.made == 0, x0, now.x0)
            step = StepInputs(z, x0, x0_before, before, here, there, keys, dials.stochasticity)
            return jax.lax.cond(last, lambda: x0, lambda: _RULES[sampler.kind](step, seen)), x0

        def again(repeat: jax.Array, found: tuple[Image, Image]) -> tuple[Image, Image]:
            keys = _fold(_fold(now.keys, "again", index), "repeat", repeat)
            return once(_back(found[0], _fold(keys, "back", 0), there, here), keys)

        found = once(now.z, _fold(now.keys, "step", index))
        if known is not None:
            found = jax.lax.fori_loop(1, jnp.where(last, 1, dials.repeats), again, found)
        return SamplerState(now.keys, *found, now.made + 1)

    return jax.lax.fori_loop(dials.first, dials.last, body, state)


def _with_known(denoise: Denoise, known: KnownPixels | None) -> Denoise:
    """`denoise` in float32, whose x0 has the known pixels."""

    def seen(z: Image, logsnr: LogSNR) -> Image:
        x0 = denoise(z, logsnr).astype(jnp.float32)
        return x0 if known is None else jnp.where(known.mask, known.pixels, x0)

    return seen


def ddpm_step(step: StepInputs, denoise: Denoise) -> Image:
    """Ancestral sampling with the variance interpolated by gamma (equation 6)."""
    mean, std = ddpm_mean_std(step)
    return mean + std * rng.normal_each(step.keys, step.z_t.shape[1:])


def ddpm_mean_std(step: StepInputs) -> tuple[Image, Scale]:
    """Mean and standard deviation of the ancestral step.

    The variance is a geometric mean of the posterior's (gamma 0) and the transition's (gamma 1).
    """
    gamma = step.stochasticity
    alpha_t, _ = alpha_sigma(step.logsnr_t)
    alpha_s, sigma_s = alpha_sigma(step.logsnr_s)
    kept = jnp.exp(step.logsnr_t - step.logsnr_s)[:, None, None, None]
    lost = -jnp.expm1(step.logsnr_t - step.logsnr_s)[:, None, None, None]
    mean = kept * (alpha_s / alpha_t) * step.z_t + lost * alpha_s * step.x0
    small = lost * sigma_s**2
    large = schedules.transition_variance(step.logsnr_s, step.logsnr_t)
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
    h_before = (step.logsnr_t - step.logsnr_before)[:, None, None, None] / 2
    h = (step.logsnr_s - step.logsnr_t)[:, None, None, None] / 2
    slope = jnp.where(h_before > 0, h / (2 * jnp.where(h_before > 0, h_before, 1.0)), 0.0)  # 1 / 2r
    estimate = (1 + slope) * step.x0 - slope * step.x0_before
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


def _row(index: Any) -> jax.Array:
    return jnp.asarray(index)[None]


def _noised(x0: Image, keys: Keys, logsnr: LogSNR) -> Image:
    """z at a level, with noise that is drawn for it."""
    return schedules.add_noise(x0, rng.normal_each(_fold(keys, "known", 0), x0.shape[1:]), logsnr)


def _back(z_s: Image, keys: Keys, logsnr_s: LogSNR, logsnr_t: LogSNR) -> Image:
    """A draw of z_t given z_s: the noise of one step put back."""
    (alpha_s, _), (alpha_t, _) = alpha_sigma(logsnr_s), alpha_sigma(logsnr_t)
    std = jnp.sqrt(schedules.transition_variance(logsnr_s, logsnr_t))
    return alpha_t / alpha_s * z_s + std * rng.normal_each(keys, z_s.shape[1:])


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
