"""One stage as `denoise(z, logsnr) -> x0`: guidance and thresholding wrapped round a network."""

from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax import config, models
from imagen_jax.diffusion import guidance, preconditioning, prediction, thresholding
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.types import Conditioned, Denoise, Network, Params


def build(
    params: Params,
    cond: Conditioned,
    uncond: Conditioned | None,
    sampler_params: SamplerParams,
    *,
    module: Network,
    stage: config.Stage,
) -> Denoise:
    """The guided, thresholded denoiser that a sampler calls.

    Shapes: cond and uncond are `Conditioning` pytrees of batch b; uncond None skips the second pass
    (guidance weight 1). Both passes run as one batch of 2b and share z and the noised low_res.
    Source: sections 2.2, 2.3; the order guidance, x0, threshold is that of appendix A.
    """
    sampler = stage.sampler

    def to_x0(part: Any) -> Denoise:
        network = models.predictor(module, params, part)
        predict = preconditioning.precondition(network, part.low_res, diffusion=stage.diffusion)

        def denoise(z: jax.Array, logsnr: jax.Array) -> jax.Array:
            output = predict(z, logsnr)
            return prediction.to_x0(output, z, logsnr, predicts=stage.diffusion.predicts)

        return denoise

    plain = to_x0(cond)
    both = plain if uncond is None else to_x0(_stack(cond, uncond))

    def guided(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        halves = both(jnp.concatenate([z, z]), jnp.concatenate([logsnr, logsnr]))
        cond_x0, uncond_x0 = jnp.split(halves, 2)
        x0 = guidance.guide(cond_x0, uncond_x0, weight=sampler_params.guidance_weight)
        return guidance.rescale(x0, cond_x0, share=sampler_params.guidance_rescale)

    def denoise(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        if uncond is None:
            x0 = plain(z, logsnr)
        elif sampler.guidance_interval is None:
            x0 = guided(z, logsnr)
        else:
            # Decided as it runs: the second pass is not computed where it would change nothing.
            wanted = guidance.is_guided(logsnr, sampler_params)
            x0 = jax.lax.cond(wanted, guided, plain, z, logsnr)
        # Clipping would make pixels of what overflowed; what is NaN once stays so to the end.
        x0 = jnp.where(jnp.isfinite(x0), x0, jnp.nan)
        return thresholding.threshold(x0, sampler=sampler)

    return denoise


def _stack(cond: Any, uncond: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), cond, uncond)
