"""Noise schedules of discrete betas: the 1,000 levels of networks that count their time steps.

DeepFloyd IF's networks were trained on such levels (arXiv:2102.09672). In this package levels are
logsnr everywhere; here numbers of steps become levels, and levels become numbers of steps again.
"""

from __future__ import annotations

import functools
from typing import assert_never

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.config import Betas
from imagen_jax.config.diffusion import TIME_STEPS
from imagen_jax.types import LogSNR

STEPS = TIME_STEPS
MAX_BETA = 0.999  # of the cosine, whose last beta would be 1
LINEAR = (1e-4, 0.02)  # the first and the last beta
NEAR = 1e-3  # of a step: less is the rounding of a share of all steps


@functools.cache
def betas(kind: Betas) -> np.ndarray:
    """The variance that each step adds, float32 (1000,).

    Source: arXiv:2102.09672, equation 17; arXiv:2006.11239 for linear. They are rounded to float32,
    as the networks' training had them.
    """
    match kind:
        case "linear":
            return np.linspace(*LINEAR, STEPS, dtype=np.float32)
        case "cosine":
            edges = np.cos((np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
            return np.minimum(1 - edges[1:] / edges[:-1], MAX_BETA).astype(np.float32)
    assert_never(kind)


@functools.cache
def levels(kind: Betas) -> np.ndarray:
    """The logsnr of each step, float32 (1000,), in nats; it falls."""
    signal = np.cumprod(1.0 - betas(kind).astype(np.float64))
    return (np.log(signal) - np.log1p(-signal)).astype(np.float32)


def whole_step(time: jax.Array) -> jax.Array:
    """Round times of [0, 1) down to time steps, each as likely as any other, as times of [0, 1].

    Shapes: time and the result (b,).
    """
    step = jnp.minimum(jnp.floor(time * STEPS), STEPS - 1)
    return step / (STEPS - 1)


def logsnr_of(step: jax.Array, kind: Betas) -> LogSNR:
    """Return the level of time step 0 to 999, whole or between two.

    Shapes: step and the result (b,). Units: result in nats.
    """
    whole = jnp.round(step)
    step = jnp.where(jnp.abs(step - whole) < NEAR, whole, step)
    return _interpolate(step, np.arange(STEPS, dtype=np.float32), levels(kind))


def step_of(logsnr: LogSNR, kind: Betas) -> jax.Array:
    """Return the time step of a level, whole for that of a whole one; the inverse of `logsnr_of`.

    Shapes: logsnr and the result (b,), float32.
    """
    rising = levels(kind)[::-1]
    return _interpolate(logsnr, rising, np.arange(STEPS - 1, -1, -1, dtype=np.float32))


def _interpolate(x: jax.Array, places: np.ndarray, values: np.ndarray) -> jax.Array:
    """Interpolate as `jnp.interp` does, by comparisons with all places at once.

    That one finds them in a loop and gathers, neither of which the TPU compiler's model of time
    counts, so that `imagen plan` would give no time.
    """
    above = jnp.sum(places[None, :] <= x[:, None], axis=1, dtype=jnp.int32)
    above = jnp.clip(above, 1, len(places) - 1)
    rows = np.arange(len(places), dtype=np.int32)

    def pick(table: np.ndarray, index: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(rows[None, :] == index[:, None], table[None, :], 0.0), axis=1)

    left, right = pick(places, above - 1), pick(places, above)
    low, high = pick(values, above - 1), pick(values, above)
    found = low + (x - left) / (right - left) * (high - low)
    found = jnp.where(x < places[0], values[0], found)
    return jnp.where(x > places[-1], values[-1], found)
