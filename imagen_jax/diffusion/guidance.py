"""Classifier-free guidance: drop captions in training, extrapolate in sampling (section 2.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.types import Image, LogSNR, Number, RandomKey, Scale

_TINY = 1e-8  # of a flat image's contrast


def drop_text(key: RandomKey, batch: int, *, rate: float) -> Bool[Array, " b"]:
    """Draw which examples keep their caption; the model gives the others its null caption.

    Shapes: result (b,), true where the caption stays. Units: rate in [0, 1].
    """
    return jax.random.bernoulli(key, 1.0 - rate, (batch,))


def guide(cond_x0: Image, uncond_x0: Image, *, weight: Number | Scale) -> Image:
    """weight * cond + (1 - weight) * uncond: 1 is conditional, 0 unconditional.

    Shapes: images and the result (b, h, w, c); weight a scalar, traced or not, or one for each
    image, (b, 1, 1, 1).
    Source: equation 2 guides eps; x0 is affine in eps and the weights sum to 1, so it is the same.
    """
    return weight * cond_x0 + (1.0 - weight) * uncond_x0


def rescale(guided_x0: Image, cond_x0: Image, *, share: Number) -> Image:
    """Take back `share` of what guidance did to each image's contrast, about its own mean.

    Shapes: images and the result (b, h, w, c); share a scalar, traced or not. Units: share 0
    changes nothing, 1 gives each image the standard deviation of its conditional one. Mean and
    deviation are of a whole image, channels together, so that colours fade towards its mean.
    Source: arXiv:2305.08891, section 3.4. Differs from the paper, which multiplies v: that pulls
    the mean of a noisy image towards grey and lets the mean of a clear one be. Here it stays.
    """
    axes = (1, 2, 3)
    wanted, found = (jnp.std(x, axis=axes, keepdims=True) for x in (cond_x0, guided_x0))
    factor = wanted / jnp.maximum(found, _TINY)
    around = guided_x0 - jnp.mean(guided_x0, axis=axes, keepdims=True)
    return guided_x0 + share * (factor - 1.0) * around


def is_guided(logsnr: LogSNR, sampler_params: SamplerParams) -> Bool[Array, ""]:
    """Tell whether a step is guided, which all rows of a sampler's batch share.

    It is not at weight 1, nor outside the interval of `sampler_params`.
    Shapes: logsnr (b,), the same everywhere. Units: interval in sigma / alpha, low < x <= high.
    Source: arXiv:2404.07724, whose sigma is that of x0 + sigma eps.
    """
    ratio = jnp.exp(-0.5 * logsnr[0])
    inside = (sampler_params.guidance_low < ratio) & (ratio <= sampler_params.guidance_high)
    return inside & (sampler_params.guidance_weight != 1.0)
