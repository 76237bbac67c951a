"""What a training step draws and prepares for its networks, of a batch."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from imagen_jax import config, models, rng
from imagen_jax.data.pipeline import Batch
from imagen_jax.diffusion import guidance, noise_conditioning
from imagen_jax.image import to_float
from imagen_jax.models import Conditioning
from imagen_jax.types import Image, Network, Params, RandomKey


class TrainingInputs(NamedTuple):
    """Clean images, and what a network is conditioned on: captions, and the low-resolution image.

    Shapes: x0 (b, h, w, c) in [-1, 1]; captions as `models.condition` has them; low_res
    (b, h, w, c), upsampled and noised, and its aug_logsnr (b,), both None for a base stage.
    """

    x0: Image
    captions: tuple[Any, Any, Any]
    low_res: Any = None
    aug_logsnr: Any = None

    def condition(
        self, module: Network, params: Params, *, guidance_weight: Any = None
    ) -> Conditioning:
        """Condition a network on it; `guidance_weight` as in `models.condition`."""
        return models.condition(
            module,
            params,
            self.captions,
            low_res=self.low_res,
            aug_logsnr=self.aug_logsnr,
            guidance_weight=guidance_weight,
        )

    def without_text(self) -> "TrainingInputs":
        """The same images with empty captions."""
        text, mask, has_text = self.captions
        return self._replace(captions=(text, mask, jnp.zeros_like(has_text)))


def prepare(stage: config.Stage, batch: Batch, key: RandomKey) -> TrainingInputs:
    """Drop some captions, and noise the low-resolution images."""
    size = batch.pixels.shape[0]
    has_text = guidance.drop_text(rng.fold(key, "drop_text"), size, rate=stage.text_drop_rate)
    inputs = TrainingInputs(to_float(batch.pixels), (batch.text, batch.text_mask, has_text))
    if batch.low_pixels is None:
        return inputs
    options = stage.noise_conditioning
    aug_level = noise_conditioning.draw_level(rng.fold(key, "aug_level"), size, options=options)
    low_res, aug_logsnr = noise_conditioning.prepare(
        to_float(batch.low_pixels),
        aug_level,
        rng.fold_each(key, "aug_noise", jnp.arange(size)),
        factor=stage.factor,
        options=options,
    )
    return inputs._replace(low_res=low_res, aug_logsnr=aug_logsnr)
