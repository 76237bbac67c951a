"""The one change of unit: uint8 pixels to images in [-1, 1] and back."""

import jax
import jax.numpy as jnp
import numpy as np


def scale(pixels: jax.Array | np.ndarray) -> jax.Array:
    """Pixels 0-255 as a float32 image in [-1, 1]."""
    return jnp.asarray(pixels).astype(jnp.float32) / 127.5 - 1.0


@jax.jit
def unscale(image: jax.Array | np.ndarray) -> jax.Array:
    """An image in [-1, 1] as uint8 pixels, rounded; values outside are clipped."""
    return jnp.round((jnp.clip(image, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)
