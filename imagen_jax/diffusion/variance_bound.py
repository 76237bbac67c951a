"""The loss of a learned variance: a step's variational bound, of which its mean learns nothing."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from imagen_jax import config, discrete_schedule
from imagen_jax.types import Image, LogSNR

HALF_GREY = 1 / 255  # half the distance between two of the 256 greys in [-1, 1]
EDGE = 0.999  # beyond it a pixel is black or white, and stands for all that is darker or lighter
LEAST = 1e-12  # of a probability, whose logarithm is taken


class StepTable(NamedTuple):
    """What the bound reads of each discrete time step, float32 (1000,)."""

    log_smallest: np.ndarray  # log variance of the true step; step 0 has that of step 1
    log_largest: np.ndarray  # log beta
    mean_factor: np.ndarray  # the error of the step's mean, over that of eps


@functools.cache
def step_table(kind: config.Betas) -> StepTable:
    """Return the table of a schedule. Source: arXiv:2102.09672, equations 10 to 15."""
    betas = discrete_schedule.betas(kind).astype(np.float64)
    signal = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], signal[:-1]])
    smallest = betas * (1 - before) / (1 - signal)
    smallest[0] = smallest[1]  # that of step 0 is 0
    factor = betas / np.sqrt((1 - signal) * (1 - betas))
    found = (np.log(smallest), np.log(betas), factor)
    return StepTable(*(x.astype(np.float32) for x in found))


def variance_bound(
    x0: Image,
    eps: Image,
    predicted: Image,
    share: Image,
    logsnr: LogSNR,
    *,
    betas: config.Betas,
) -> Float32[Array, " b"]:
    """Return the bound on a step's negative log likelihood, in bits a value, (b,).

    It is the divergence of the predicted step from the true one, and at time step 0 the likelihood
    of the image's greys. `predicted` is eps; no gradient reaches it. `share` says where the
    logarithm of the variance lies between its bounds, 0 smallest to 1 largest.

    Shapes: images (b, h, w, c); logsnr (b,), of whole time steps. Units: x0 in [-1, 1].
    Source: arXiv:2102.09672, equations 14 to 16.
    """
    table = step_table(betas)
    step = jnp.round(discrete_schedule.step_of(logsnr, betas)).astype(jnp.int32)
    smallest, largest, factor = (jnp.asarray(x)[step][:, None, None, None] for x in table)
    log_variance = share * largest + (1 - share) * smallest
    error = factor * (jax.lax.stop_gradient(predicted) - eps)  # x0 minus the mean at step 0
    ratio = jnp.exp(smallest - log_variance)
    divergence = (log_variance - smallest + ratio - 1 + error**2 * jnp.exp(-log_variance)) / 2
    is_last = (step == 0)[:, None, None, None]
    nats = jnp.where(is_last, -_log_likelihood(x0, error, log_variance), divergence)
    return jnp.mean(nats, axis=(1, 2, 3)) / math.log(2)


def _log_likelihood(x0: jax.Array, error: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Log probability of each value's grey under a normal whose mean lies `error` below it."""
    precision = jnp.exp(-log_variance / 2)
    above = jax.scipy.stats.norm.cdf(precision * (error + HALF_GREY))
    below = jax.scipy.stats.norm.cdf(precision * (error - HALF_GREY))
    found = jnp.where(x0 < -EDGE, above, jnp.where(x0 > EDGE, 1 - below, above - below))
    return jnp.log(jnp.maximum(found, LEAST))
