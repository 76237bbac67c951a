"""Noise conditioning augmentation of the low-resolution input (section 2.4), for both phases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from imagen_jax import config, discrete_schedule, rng
from imagen_jax.config.diffusion import BETAS
from imagen_jax.diffusion import schedules
from imagen_jax.types import AugLevel, Image, Keys, LogSNR, RandomKey


def prepare(
    low_res: Image,
    aug_level: AugLevel,
    keys: Keys,
    *,
    factor: int,
    options: config.NoiseConditioning,
) -> tuple[Float32[Array, "b H W c"], LogSNR]:
    """Upsample the low-resolution image and noise it: what the network sees, and its aug_logsnr.

    Training and sampling both prepare it here. Shapes: low_res (b, h, w, c); first result
    (b, h * factor, w * factor, c). The rest as in `augment`.
    """
    return augment_low_res(
        upsample(low_res, factor=factor, kind=options.upsampling), aug_level, keys, options=options
    )


def draw_level(key: RandomKey, batch: int, *, options: config.NoiseConditioning) -> AugLevel:
    """Draw the noise of training: uniform from 0 to `max_level`, in whole steps where those count.

    Shapes: result (b,).
    """
    drawn = jax.random.uniform(key, (batch,))
    if options.schedule.kind in BETAS:
        drawn = discrete_schedule.whole_step(drawn)
    return options.max_level * drawn


def upsample(
    low_res: Image, *, factor: int, kind: config.Upsampling = "half_pixel"
) -> Float32[Array, "b H W c"]:
    """Upsample bilinearly: half-pixel centres with edges clamped, or corners on corners.

    Shapes: low_res (b, h, w, c); result (b, h * factor, w * factor, c), float32.
    """
    _, height, width, _ = low_res.shape
    return jnp.einsum(
        "Hh,Ww,bhwc->bHWc",
        _bilinear(height, height * factor, kind),
        _bilinear(width, width * factor, kind),
        low_res.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,  # TPUs would multiply in bfloat16
    )


def augment_low_res(
    low_res: Image, aug_level: AugLevel, keys: Keys, *, options: config.NoiseConditioning
) -> tuple[Image, LogSNR]:
    """Noise the low-resolution image; return what the network sees, and its aug_logsnr.

    Shapes: low_res and the first result (b, h, w, c), upsampled; aug_level, keys and the second
    result (b,). Units: aug_level 0 none to 1 all; aug_logsnr in nats.
    The noise of image i comes from keys[i] only. Source: section 2.4, appendix fig. A.32.
    """
    aug_logsnr = schedules.logsnr(aug_level, schedule=options.schedule)
    eps = rng.normal_each(keys, low_res.shape[1:])
    return schedules.add_noise(low_res.astype(jnp.float32), eps, aug_logsnr), aug_logsnr


def _bilinear(old: int, new: int, kind: config.Upsampling) -> np.ndarray:
    """The (new, old) float32 matrix that interpolates one axis."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    if kind == "align_corners":
        centre = np.arange(new) * (old - 1) / max(new - 1, 1)
    left = np.floor(centre).astype(int)
    fraction = centre - left
    matrix = np.zeros((new, old), np.float32)
    rows = np.arange(new)
    np.add.at(matrix, (rows, np.clip(left, 0, old - 1)), 1 - fraction)
    np.add.at(matrix, (rows, np.clip(left + 1, 0, old - 1)), fraction)
    return matrix
