"""Prediction types eps, x0 and v, with x0 as the hub between them (appendix A)."""

from __future__ import annotations

from imagen_jax import config
from imagen_jax.diffusion.schedules import alpha_sigma
from imagen_jax.types import Image, LogSNR


def to_x0(prediction: Image, z: Image, logsnr: LogSNR, *, predicts: config.Predicts) -> Image:
    """Clean image implied by a network output.

    Shapes: prediction, z and the result (b, h, w, c); logsnr (b,).
    Units: images in [-1, 1]; logsnr in nats.
    Errors: none here; config.Diffusion has validated `predicts`.
    Source: eps, Imagen app. A; v, arXiv:2202.00512 sec. 4.
    """
    alpha, sigma = alpha_sigma(logsnr)
    from_eps, from_v = (z - sigma * prediction) / alpha, alpha * z - sigma * prediction
    return {"eps": from_eps, "x0": prediction, "v": from_v}[predicts]


def from_x0(x0: Image, z: Image, logsnr: LogSNR, *, predicts: config.Predicts) -> Image:
    """Return the output that implies this clean image: the inverse of `to_x0`, and the target.

    Shapes, Units, Errors, Source: as `to_x0`.
    """
    alpha, sigma = alpha_sigma(logsnr)
    eps, v = (z - alpha * x0) / sigma, (alpha * z - x0) / sigma
    return {"eps": eps, "x0": x0, "v": v}[predicts]
