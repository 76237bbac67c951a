"""Classifier-free guidance: drop captions in training, extrapolate in sampling (section 2.2)."""

from __future__ import annotations

import jax
from jaxtyping import Array, Bool, Float

from imagen_jax.types import Image, RandomKey


def drop_text(key: RandomKey, batch: int, *, rate: float) -> Bool[Array, " b"]:
    """Which examples keep their caption; the model gives the others its null caption.

    Shapes: result (b,), true where the caption stays. Units: rate in [0, 1].
    """
    return jax.random.bernoulli(key, 1.0 - rate, (batch,))


def guide(cond_x0: Image, uncond_x0: Image, *, weight: float | Float[Array, ""]) -> Image:
    """weight * cond + (1 - weight) * uncond: 1 is conditional, 0 unconditional.

    Shapes: images and the result (b, h, w, c); weight a scalar, traced or not.
    Source: equation 2 guides eps; x0 is affine in eps and the weights sum to 1, so it is the same.
    """
    return weight * cond_x0 + (1.0 - weight) * uncond_x0
