"""One stage as `denoise(z, logsnr) -> x0`: guidance and thresholding wrapped round a network."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax import config, models
from imagen_jax.diffusion import guidance, preconditioning, prediction, thresholding
from imagen_jax.diffusion.samplers import Denoised, SamplerParams
from imagen_jax.types import Conditioned, Image, Network, Params


def build(
    params: Params,
    cond: Conditioned,
    uncond: Conditioned | None,
    sampler_params: SamplerParams,
    *,
    module: Network,
    stage: config.Stage,
) -> Callable[[jax.Array, jax.Array], Image | Denoised]:
    """The guided, thresholded denoiser that a sampler calls.

    It has the variance's share beside the image where the network predicts that: the conditional
    one, which guidance leaves alone.

    Shapes: cond and uncond are `Conditioning` pytrees of batch b; uncond None skips the second pass
    (guidance weight 1). Both passes run as one batch of 2b and share z and the noised low_res.
    Source: sections 2.2, 2.3; the order guidance, x0, threshold is that of appendix A.
    """
    sampler, learned = stage.sampler, stage.diffusion.variance == "learned_range"
    conditioned = functools.partial(_conditioned, params, module=module, diffusion=stage.diffusion)
    plain = guided = conditioned(cond)
    if uncond is not None:
        guided = _guided(conditioned(_stack(cond, uncond)), sampler_params)

    def denoise(z: jax.Array, logsnr: jax.Array) -> Image | Denoised:
        if uncond is None or sampler.guidance_interval is None:
            found = guided(z, logsnr)
        else:
            # Decided as it runs: the second pass is not computed where it would change nothing.
            wanted = guidance.is_guided(logsnr, sampler_params)
            found = jax.lax.cond(wanted, guided, plain, z, logsnr)
        # Clipping would make pixels of what overflowed; what is NaN once stays so to the end.
        x0 = jnp.where(jnp.isfinite(found.x0), found.x0, jnp.nan)
        x0 = thresholding.threshold(x0, sampler=sampler)
        return Denoised(x0, found.variance_share) if learned else x0

    return denoise


def _conditioned(
    params: Params, cond: Any, *, module: Network, diffusion: config.Diffusion
) -> Callable[[jax.Array, jax.Array], Denoised]:
    """The clean image that the network predicts, and the variance's share, empty without one."""
    network = functools.partial(_predict, params, cond, module=module)
    predict = preconditioning.precondition(network, cond.low_res, diffusion=diffusion)

    def denoise(z: jax.Array, logsnr: jax.Array) -> Denoised:
        output = predict(z, logsnr)
        output, rest = output[..., : z.shape[-1]], output[..., z.shape[-1] :]
        x0 = prediction.to_x0(output, z, logsnr, predicts=diffusion.predicts)
        return Denoised(x0, (rest + 1) / 2)

    return denoise


def _guided(
    both: Callable[[jax.Array, jax.Array], Denoised], sampler_params: SamplerParams
) -> Callable[[jax.Array, jax.Array], Denoised]:
    """The clean image of both passes, which `both` makes as one batch of 2b."""

    def guided(z: jax.Array, logsnr: jax.Array) -> Denoised:
        halves = both(jnp.concatenate([z, z]), jnp.concatenate([logsnr, logsnr]))
        cond_x0, uncond_x0 = jnp.split(halves.x0, 2)
        x0 = guidance.guide(cond_x0, uncond_x0, weight=sampler_params.guidance_weight)
        x0 = guidance.rescale(x0, cond_x0, share=sampler_params.guidance_rescale)
        return Denoised(x0, halves.variance_share[: z.shape[0]])

    return guided


@functools.partial(jax.jit, static_argnames=("module",))
def _predict(
    params: Params, cond: Any, z: jax.Array, logsnr: jax.Array, *, module: Network
) -> jax.Array:
    """The network's output: a program within others, which trace it once."""
    return models.predictor(module, params, cond)(z, logsnr)


def _stack(cond: Any, uncond: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), cond, uncond)
