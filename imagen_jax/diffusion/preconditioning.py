"""From the raw network to `predict(z, logsnr)`: the one way, for training and for sampling."""

from __future__ import annotations

from typing import assert_never

import jax
import jax.numpy as jnp

from imagen_jax import config
from imagen_jax.diffusion.schedules import alpha_sigma
from imagen_jax.types import Image, Predict


def precondition(
    network: Predict, low_res: Image | None, *, diffusion: config.Diffusion
) -> Predict:
    """Wrap the network as a predictor of `diffusion.predicts`, in float32.

    Shapes: low_res (b, h, w, c), the low-resolution image as the network sees it: upsampled and
    noised. None at the base stage.
    Errors: ValueError if `predict_residual` is asked of a stage without a low-resolution image.
    """
    if diffusion.preconditioning == "edm":
        return _edm(network, diffusion.sigma_data)
    if not diffusion.predict_residual:
        return lambda z, logsnr: network(z, logsnr).astype(jnp.float32)
    if low_res is None:
        raise ValueError("diffusion: predict_residual=True needs a low-resolution image")
    return _residual(network, low_res.astype(jnp.float32), diffusion.predicts)


def _residual(network: Predict, low_res: Image, predicts: config.Predicts) -> Predict:
    """The network diffuses r = x0 - low_res: it sees z - alpha * low_res = alpha r + sigma eps.

    Its v is alpha eps - sigma r, which exceeds the v of x0 by sigma * low_res; eps is the same.
    """

    def predict(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        alpha, sigma = alpha_sigma(logsnr)
        output = network(z - alpha * low_res, logsnr).astype(jnp.float32)
        if predicts == "x0":
            return output + low_res
        if predicts == "v":
            return output - sigma * low_res
        if predicts == "eps":
            return output
        assert_never(predicts)

    return predict


def _edm(network: Predict, sigma_data: float) -> Predict:
    """x0 = c_skip * x + c_out * F(c_in * x) of EDM (arXiv:2206.00364, table 1), x = z / alpha.

    With sigma_edm = sigma / alpha the powers of alpha cancel, so that nothing overflows at the
    limits of logsnr; `variance` is that of z for data of variance sigma_data^2.
    """

    def predict(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        alpha, sigma = alpha_sigma(logsnr)
        variance = sigma**2 + (alpha * sigma_data) ** 2
        output = network(z / jnp.sqrt(variance), logsnr).astype(jnp.float32)
        skip = alpha * sigma_data**2 / variance
        return skip * z + sigma * sigma_data / jnp.sqrt(variance) * output

    return predict
