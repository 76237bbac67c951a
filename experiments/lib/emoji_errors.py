"""Error of the image that a stage predicts in pure noise, where a caption alone decides."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from imagen_jax.diffusion import schedules
from imagen_jax.image import to_float
from imagen_jax.imagen import Imagen
from lib.emoji_measures import Drawn
from lib.x0_prediction import x0_predictor

PURE_NOISE = -10.0  # log-SNR: an image then has .007 of the noise's scale


def pure_noise_error(imagen: Imagen, drawn: Drawn, *, seed: int) -> dict[str, float]:
    """Mean square errors of images in [-1, 1], those of some captions.

    `error` is that of what the first stage predicts. `variance` is that of the images' mean, which
    a network that does not read captions predicts at best.
    """
    first = imagen.stages[0]
    text = jax.tree.map(jnp.asarray, imagen.encode(drawn.captions).captions)
    real = to_float(drawn.real.at(first.stage.size))

    @jax.jit
    def predict(params, z, logsnr):
        return x0_predictor(params, text, module=first.module, stage=first.stage)(z, logsnr)

    eps = jax.random.normal(jax.random.key(seed), real.shape)
    logsnr = jnp.full((real.shape[0],), PURE_NOISE)
    x0 = predict(first.device_params(), schedules.add_noise(real, eps, logsnr), logsnr)
    return {
        "error": float(jnp.square(x0 - real).mean()),
        "variance": float(real.var(axis=0).mean()),
    }
