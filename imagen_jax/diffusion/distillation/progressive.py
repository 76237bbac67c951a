"""Progressive distillation: one DDIM step of the student for two or more of the teacher."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp

from imagen_jax import config, rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.loss import LossTerms
from imagen_jax.diffusion.prediction import from_x0
from imagen_jax.diffusion.schedules import alpha_sigma
from imagen_jax.types import Denoise, Image, LogSNR, RandomKey


def loss(
    student: Denoise,
    teacher: Denoise,
    x0: Image,
    key: RandomKey,
    *,
    schedule: config.NoiseSchedule,
    distillation: config.Distillation,
) -> LossTerms:
    """Compute the error of the student's image against the one that the teacher's steps imply.

    The student's step i of `steps` goes from time i / steps to (i - 1) / steps, and i is drawn;
    the teacher takes `teacher_steps` of its own between them.

    Shapes: x0 (b, h, w, c); results (b,).
    Source: arXiv:2202.00512, algorithm 2, which has two; its weight is max(SNR, 1).
    """
    x0, steps = x0.astype(jnp.float32), distillation.steps
    ends = jax.random.randint(rng.fold(key, "step"), x0.shape[:1], 1, steps + 1)

    def level_at(back: float) -> LogSNR:
        return schedules.logsnr((ends.astype(jnp.float32) - back) / steps, schedule=schedule)

    parts = distillation.teacher_steps
    levels = [level_at(done / parts) for done in range(parts + 1)]
    level_t, level_s = levels[0], levels[-1]
    noise = jax.random.normal(rng.fold(key, "noise"), x0.shape)
    z_t = z_s = schedules.add_noise(x0, noise, level_t)
    for before, after in itertools.pairwise(levels):
        z_s = ddim(teacher, z_s, before, after)
    target = jax.lax.stop_gradient(implied_x0(z_t, z_s, level_t, level_s))
    error = jnp.mean((student(z_t, level_t) - target) ** 2, axis=(1, 2, 3))
    return LossTerms(jnp.exp(jnp.maximum(level_t, 0.0)) * error, level_t)


def ddim(denoise: Denoise, z: Image, logsnr_t: LogSNR, logsnr_s: LogSNR) -> Image:
    """Return z at logsnr_s, one DDIM step from logsnr_t. Shapes: levels (b,)."""
    x0 = denoise(z, logsnr_t)
    return schedules.add_noise(x0, from_x0(x0, z, logsnr_t, predicts="eps"), logsnr_s)


def implied_x0(z_t: Image, z_s: Image, logsnr_t: LogSNR, logsnr_s: LogSNR) -> Image:
    """Return the image with which one DDIM step leads from z_t to z_s.

    Shapes: images (b, h, w, c); levels (b,). Source: arXiv:2202.00512, appendix G.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(logsnr_t), alpha_sigma(logsnr_s)
    ratio = sigma_s / sigma_t
    return (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t)
