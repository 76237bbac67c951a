"""Distillation of guidance: the student predicts the guided image in one call."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from imagen_jax import config, rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.loss import LossTerms, draw_logsnr, weight
from imagen_jax.diffusion.prediction import from_x0
from imagen_jax.types import Denoise, Image, Predict, RandomKey


def loss(
    student: Predict, teacher: Denoise, x0: Image, key: RandomKey, *, diffusion: config.Diffusion
) -> LossTerms:
    """Compute the training loss with the teacher's image in the place of the clean one.

    `student` predicts what `diffusion.predicts` says, unthresholded; levels, noise and weights are
    those of training.

    Shapes: x0 (b, h, w, c); results (b,). Source: arXiv:2210.03142, equation 4.
    """
    x0 = x0.astype(jnp.float32)
    level, width = draw_logsnr(rng.fold(key, "level"), x0.shape[0], diffusion=diffusion)
    z = schedules.add_noise(x0, jax.random.normal(rng.fold(key, "noise"), x0.shape), level)
    wanted = jax.lax.stop_gradient(teacher(z, level))
    target = from_x0(wanted, z, level, predicts=diffusion.predicts)
    error = jnp.mean((student(z, level) - target) ** 2, axis=(1, 2, 3))
    return LossTerms(weight(level, width, diffusion=diffusion) * error, level)
