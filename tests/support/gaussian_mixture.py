"""A mixture of three Gaussians in the plane, as images of one pixel, and its exact denoiser."""

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import rng
from imagen_jax.diffusion import schedules

CENTRES = np.array([[0.8, 0.0], [-0.4, 0.7], [-0.4, -0.7]], np.float32)
SPREAD = 0.1  # of each of the mixture's modes


def draw_mixture(key: jax.Array, count: int) -> jax.Array:
    """Points of the mixture as images of one pixel, (count, 1, 1, 2)."""
    which = jax.random.randint(rng.fold(key, "which"), (count,), 0, len(CENTRES))
    noise = jax.random.normal(rng.fold(key, "spread"), (count, 2))
    return (jnp.asarray(CENTRES)[which] + SPREAD * noise)[:, None, None, :]


def posterior(z: jax.Array, logsnr: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of the clean image given z: each mode's share (b, m), mean (b, m, 2), variance (b, 1)."""
    alpha, sigma = (x[:, 0, 0] for x in schedules.alpha_sigma(logsnr))
    variance = alpha**2 * SPREAD**2 + sigma**2
    gap = z[:, 0, 0, None, :] - alpha[..., None] * jnp.asarray(CENTRES)[None]
    shares = jax.nn.softmax(-jnp.sum(gap**2, axis=-1) / (2 * variance))
    means = jnp.asarray(CENTRES)[None] + (alpha * SPREAD**2 / variance)[..., None] * gap
    return shares, means, SPREAD**2 * sigma**2 / variance


def denoise_mixture(z: jax.Array, logsnr: jax.Array) -> jax.Array:
    """The exact denoiser of the mixture."""
    shares, means, _ = posterior(z, logsnr)
    return jnp.einsum("bm,bmc->bc", shares, means)[:, None, None, :]
