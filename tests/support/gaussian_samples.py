"""Runs of samplers on data N(0, s^2), whose denoiser is alpha s^2 z / (alpha^2 s^2 + sigma^2)."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import config, rng
from imagen_jax.diffusion import samplers, sampling_loop, schedules, spacing
from imagen_jax.diffusion.samplers import SamplerParams, StepInputs

KINDS = get_args(config.SamplerKind)
COSINE = config.Diffusion()
PIXEL = (1, 1, 1)


def keys_of(batch: int) -> jax.Array:
    return rng.fold_each(rng.root(1), "test", jnp.arange(batch))


def gaussian(s):
    """The exact denoiser of N(0, s^2)."""

    def denoise(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        alpha, sigma = schedules.alpha_sigma(logsnr)
        return alpha * s**2 * z / (alpha**2 * s**2 + sigma**2)

    return denoise


def run(denoise, kind: str, steps: int, shape=PIXEL, **options) -> np.ndarray:
    """A jitted run with one key (`batch` of them) on the default schedule."""
    batch = options.pop("batch", 1)
    sampler = config.Sampler(kind=kind, steps=steps, **options)

    @jax.jit
    def sample_all() -> jax.Array:
        keys = keys_of(batch)
        return sample(denoise, keys, shape=shape, sampler=sampler, diffusion=COSINE)

    return np.asarray(sample_all())


def sample(denoise, keys, *, shape, sampler, diffusion=COSINE) -> jax.Array:
    """All steps, from pure noise."""
    params, blank = SamplerParams.from_config(sampler), jnp.zeros((*keys.shape, *shape))
    levels = functools.partial(spacing.logsnr_at, sampler=sampler, diffusion=diffusion)
    start = sampling_loop.init_state(keys, params, blank, levels=levels)
    rule = samplers.RULES[sampler.kind]
    return sampling_loop.sample(denoise, start, params, steps=sampling_loop.Steps(rule, levels)).x0


def level_grid(sampler: config.Sampler, diffusion: config.Diffusion) -> jax.Array:
    numbers = jnp.arange(sampler.steps + 1)
    return spacing.logsnr_at(numbers, sampler.steps, sampler=sampler, diffusion=diffusion)


class Spy:
    """Records the level, mean and standard deviation of each call's z, given the true x0."""

    def __init__(self, denoise, x0: float = 0.0) -> None:
        self.calls, self.denoise, self.x0 = [], denoise, x0

    def __call__(self, z: jax.Array, logsnr: jax.Array) -> jax.Array:
        alpha, sigma = schedules.alpha_sigma(logsnr)
        noise = (z - alpha * self.x0) / sigma
        record = (logsnr[0], noise.mean(), noise.std(), z.std())
        jax.debug.callback(lambda *r: self.calls.append(np.float64(r)), *record, ordered=True)
        return self.denoise(z, logsnr)


def constant_step(z, x0, x0_prev, levels) -> StepInputs:
    """A step on (b, 1, 1, 1) arrays; levels are (before, t, s)."""
    z, x0, x0_prev = (jnp.float32(x).reshape(-1, 1, 1, 1) for x in (z, x0, x0_prev))
    before, t, s = (jnp.float32(x).reshape(-1) for x in levels)
    return StepInputs(z, x0, x0_prev, before, t, s, keys_of(z.shape[0]), jnp.float32(0.3))
