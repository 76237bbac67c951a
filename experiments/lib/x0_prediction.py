"""The image that a base stage's network predicts at any log-SNR, without guidance or threshold."""

from __future__ import annotations

from collections.abc import Callable

import jax

from imagen_jax import config, models
from imagen_jax.diffusion import preconditioning, prediction
from imagen_jax.sample.sampler_inputs import EncodedText
from imagen_jax.types import Network, Params


def x0_predictor(
    params: Params, captions: EncodedText, *, module: Network, stage: config.Stage
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the function of z and log-SNR that predicts x0; it projects the captions once."""
    network = models.predictor(module, params, models.condition(module, params, captions))
    predict = preconditioning.precondition(network, None, diffusion=stage.diffusion)

    def predict_x0(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        output = predict(z, logsnr)
        return prediction.to_x0(output, z, logsnr, predicts=stage.diffusion.predicts)

    return predict_x0
