"""Multistep moment matching: a generator of few ancestral steps (arXiv:2406.04103).

Three denoisers: the teacher, the generator that is trained to sample, and an auxiliary one that
learns what the generator's images are like. Where auxiliary and teacher agree at every noisy image,
the generator's images have the moments of the data.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from imagen_jax import config, rng
from imagen_jax.diffusion import samplers, schedules
from imagen_jax.diffusion.loss import LossTerms
from imagen_jax.types import Denoise, Image, LogSNR, RandomKey

# Nats of the weight 1 / sigma_s^2, that of an error of v, above which it rises no further: images
# with so little noise teach nothing, and would outweigh all others.
WEIGHT_LIMIT = 5.0


class Generated(NamedTuple):
    """A generator's image and a noisier one drawn from it, as its sampler would go on."""

    x0: Image  # the only one that has a gradient
    z_s: Image
    logsnr_s: LogSNR


def generate(
    generator: Denoise,
    x0: Image,
    key: RandomKey,
    *,
    schedule: config.NoiseSchedule,
    steps: int,
) -> Generated:
    """Draw s, t at most 1 / steps later, and z_t of the data; generate; draw z_s of q(z_s | z_t).

    Shapes: x0 (b, h, w, c). Source: arXiv:2406.04103, algorithm 2.
    """
    x0 = x0.astype(jnp.float32)
    batch = x0.shape[0]
    s = jax.random.uniform(rng.fold(key, "time"), (batch,))
    later = jax.random.uniform(rng.fold(key, "step"), (batch,)) / steps
    logsnr_s = schedules.logsnr(s, schedule=schedule)
    logsnr_t = schedules.logsnr(jnp.minimum(s + later, 1.0), schedule=schedule)
    noise = jax.random.normal(rng.fold(key, "noise"), x0.shape)
    z_t = schedules.add_noise(x0, noise, logsnr_t)
    generated = generator(z_t, logsnr_t)
    mean, std = samplers.posterior_mean_std(
        z_t, generated, logsnr_t, logsnr_s, stochasticity=jnp.float32(0.0)
    )
    z_s = mean + std * jax.random.normal(rng.fold(key, "posterior"), x0.shape)
    return Generated(generated, jax.lax.stop_gradient(z_s), logsnr_s)


def auxiliary_loss(auxiliary: Denoise, teacher: Denoise, generated: Generated) -> LossTerms:
    """Compute how far the auxiliary denoiser is from the generator's images, and from the teacher.

    Shapes: results (b,). Source: arXiv:2406.04103, equation 10.
    """
    wanted = jax.lax.stop_gradient(generated.x0)
    found = auxiliary(generated.z_s, generated.logsnr_s)
    taught = jax.lax.stop_gradient(teacher(generated.z_s, generated.logsnr_s))
    error = _mean((found - wanted) ** 2) + _mean((found - taught) ** 2)
    return LossTerms(weight(generated.logsnr_s) * error, generated.logsnr_s)


def generator_loss(auxiliary: Denoise, teacher: Denoise, generated: Generated) -> LossTerms:
    """Compute the product of the generator's images with the gap of the two denoisers.

    Its gradient moves the images against the gap; its value says little.

    Shapes: results (b,). Source: arXiv:2406.04103, equation 9.
    """
    gap = auxiliary(generated.z_s, generated.logsnr_s) - teacher(generated.z_s, generated.logsnr_s)
    product = _mean(generated.x0 * jax.lax.stop_gradient(gap))
    return LossTerms(weight(generated.logsnr_s) * product, generated.logsnr_s)


def weight(logsnr: LogSNR) -> LogSNR:
    """Return 1 + SNR, which makes an error of x0 one of v, up to WEIGHT_LIMIT nats."""
    return 1.0 + jnp.exp(jnp.minimum(logsnr, WEIGHT_LIMIT))


def _mean(images: Image) -> LogSNR:
    return jnp.mean(images, axis=(1, 2, 3))
