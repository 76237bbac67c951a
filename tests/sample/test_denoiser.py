"""A stage's denoiser: guidance against no text or a negative prompt, and its rescaling."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.diffusion import prediction
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.sample import denoiser

Z, DRAW = jax.random.normal(jax.random.key(5), (2, 3, 8, 8, 3))
TEXTURE = DRAW - DRAW.mean(axis=(1, 2, 3), keepdims=True)


class Told(NamedTuple):
    """Conditioning that is the image itself."""

    x0: jax.Array
    low_res: None = None


class Exact:
    """A network that returns what it is told, whatever it is shown."""

    def apply(self, variables: dict, z: jax.Array, logsnr: jax.Array, told: Told) -> jax.Array:
        return prediction.from_x0(told.x0, z, logsnr, predicts="eps")


@pytest.mark.parametrize("logsnr", [-6.0, -2.0, 0.0, 2.0, 6.0])
def test_rescaling_keeps_a_bright_image_bright(logsnr: float) -> None:
    """The negative has half the contrast, so that weight 2 is one and a half times the contrast.

    Of that .7 are taken back, about the mean of .78: multiplying x0 itself would give .59.
    """
    sampler = config.Sampler(guidance_weight=2.0, guidance_rescale=0.7, threshold="none")
    stage = config.Stage(name="s", size=64, model=config.UNet(), sampler=sampler)
    told = [Told(0.78 + contrast * TEXTURE) for contrast in (0.1, 0.05)]
    denoise = denoiser.build(
        {}, *told, SamplerParams.from_config(sampler), module=Exact(), stage=stage
    )
    found = jax.jit(denoise)(Z, jnp.full(3, logsnr))
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 0.78, atol=1e-3)
    expected = TEXTURE.std(axis=(1, 2, 3)) * (0.7 * 0.1 + 0.3 * 0.15)
    np.testing.assert_allclose(found.std(axis=(1, 2, 3)), expected, rtol=2e-2)
