"""CMMD: the maximum mean discrepancy between CLIP embeddings of two sets of images.

Source: arXiv:2401.09603 and its code: kernel exp(-|x - y|^2 / (2 sigma^2)) with sigma 10, biased
estimator, times 1000; embeddings have length 1.
Differs from that code: sums are float64 and of kernel - 1, since kernels are all close to 1.
"""

import numpy as np
from jaxtyping import Float

from imagen_jax.metrics.distances import Embeddings, squared_distances

SIGMA, SCALE = 10.0, 1000.0


def cmmd(images: Embeddings, reference: Float[np.ndarray, "m d"]) -> float:
    """Return the discrepancy, 0 for equal sets. Errors: ValueError for a set without images."""
    if not len(images) or not len(reference):
        raise ValueError(f"CMMD needs images: there are {len(images)} and {len(reference)}")
    within = _mean_kernel(images, images) + _mean_kernel(reference, reference)
    return SCALE * (within - 2 * _mean_kernel(images, reference))


def _mean_kernel(first: Embeddings, second: Float[np.ndarray, "m d"]) -> float:
    """The mean of kernel - 1 over all pairs."""
    gamma = 1 / (2 * SIGMA**2)
    total = sum(float(np.expm1(-gamma * block).sum()) for block in squared_distances(first, second))
    return total / (len(first) * len(second))
