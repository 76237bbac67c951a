"""Noise levels of a sampler's steps, whichever rule makes the steps (appendix A).

Adding a spacing is a function of the share of the steps made, and a line in `_SPACINGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import config, discrete_schedule
from imagen_jax.diffusion import schedules
from imagen_jax.types import LogSNR

# Ends of "logsnr", in nats. The first is where DPM-Solver's code begins (arXiv:2206.00927); at the
# last noise is half a grey level of 255, less than pixels of 8 bits show.
NOISIEST, CLEANEST = -10.2, 11.0
NO_NOISE = 1e4  # nats: e to its negative is 0 in float32


def logsnr_at(
    index: jax.Array,
    steps: Any,
    *,
    sampler: config.Sampler,
    diffusion: config.Diffusion,
) -> LogSNR:
    """Return the level of step `index` of `steps`, from 0; that of `steps` is where the last leads.

    "time": times go evenly from 1 to 0, as in the paper. "logsnr" and "karras" put the last step on
    the last level; where it leads is then no noise at all, and is never used.
    "leading" are multiples of a whole number of discrete time steps, down to 0; they, and listed
    ones, lead to no noise at all.
    Shapes: index (b,); result (b,). Units: result in nats.
    """
    if sampler.is_discrete:
        return _discrete(index, steps, sampler, diffusion)
    index, steps = index.astype(jnp.float32), jnp.asarray(steps, jnp.float32)
    if sampler.levels == "time":
        return schedules.logsnr(1.0 - index / steps, schedule=diffusion.schedule)
    share = jnp.minimum(index, steps - 1) / jnp.maximum(steps - 1, 1)
    return _SPACINGS[sampler.levels](share, sampler, diffusion)


def _even(share: jax.Array, sampler: config.Sampler, diffusion: config.Diffusion) -> LogSNR:
    """Even in logsnr, within what `diffusion` trains (DPM-Solver, arXiv:2206.00927)."""
    first, last = jnp.clip(jnp.array([NOISIEST, CLEANEST]), *_trained(diffusion))
    return first + share * (last - first)


def _karras(share: jax.Array, sampler: config.Sampler, diffusion: config.Diffusion) -> LogSNR:
    """Even in a root of sigma / alpha (EDM, arXiv:2206.00364, equation 5), as far as is trained."""
    root = 1 / sampler.edm_rho
    most, least = jnp.exp(-_trained(diffusion) / 2) ** root
    first, last = (
        jnp.clip(x**root, least, most) for x in (sampler.edm_sigma_max, sampler.edm_sigma_min)
    )
    return -2 * sampler.edm_rho * jnp.log(first + share * (last - first))


def _discrete(
    index: jax.Array, steps: Any, sampler: config.Sampler, diffusion: config.Diffusion
) -> LogSNR:
    """Levels of whole time steps (diffusers' "leading", and lists); of time 1 the last is."""
    index, steps = index.astype(jnp.int32), jnp.asarray(steps, jnp.int32)
    if sampler.timesteps:
        listed = np.array(sampler.timesteps, np.int32)
        chosen = jnp.asarray(listed)[jnp.clip(index, 0, len(listed) - 1)]
    else:
        chosen = (steps - 1 - index) * (discrete_schedule.STEPS // steps)
    time = jnp.maximum(chosen, 0).astype(jnp.float32) / (discrete_schedule.STEPS - 1)
    level = schedules.logsnr(time, schedule=diffusion.schedule)
    return jnp.where(index >= steps, NO_NOISE, level)


def _trained(diffusion: config.Diffusion) -> LogSNR:
    """The noisiest and the cleanest level that training draws."""
    return schedules.logsnr(jnp.array([1.0, 0.0]), schedule=diffusion.schedule)


_SPACINGS: dict[str, Callable[[jax.Array, config.Sampler, config.Diffusion], LogSNR]] = {
    "logsnr": _even,
    "karras": _karras,
}
