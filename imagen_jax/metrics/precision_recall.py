"""Precision and recall of generated images: how many lie among real ones, and the reverse.

Source: arXiv:1904.06991, k = 3; on Inception's features, as torch-fidelity and ADM's evaluator
have it, where the paper has VGG-16's.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from imagen_jax.metrics.distances import Embeddings, squared_distances

NEIGHBOURS = 3


class PrecisionRecall(NamedTuple):
    """Shares, from 0 to 1."""

    precision: float  # of images that lie within the neighbourhood of a real one
    recall: float  # of real images that lie within the neighbourhood of a generated one


def precision_recall(
    images: Embeddings, reference: Float[np.ndarray, "m d"], *, neighbours: int = NEIGHBOURS
) -> PrecisionRecall:
    """Compare images with real ones.

    Errors: ValueError for sets with no more images than a neighbourhood has.
    """
    for count, what in ((len(images), "images"), (len(reference), "reference images")):
        if count <= neighbours:
            raise ValueError(
                f"precision and recall need more than {neighbours} of each: there are {count} "
                f"{what}"
            )
    # Distances do not change, and rounding becomes less, where features are near 0.
    middle = reference.mean(axis=0, dtype=np.float64)
    images, reference = images - middle, reference - middle
    return PrecisionRecall(
        precision=float(_are_inside(images, reference, neighbours).mean()),
        recall=float(_are_inside(reference, images, neighbours).mean()),
    )


def _are_inside(
    tried: Embeddings, points: Float[np.ndarray, "m d"], neighbours: int
) -> Bool[np.ndarray, " n"]:
    """Tell which features lie within the ball of any point."""
    radii = _radii(points, neighbours)[None]
    return np.concatenate(
        [(block <= radii).any(axis=1) for block in squared_distances(tried, points)]
    )


def _radii(points: Embeddings, neighbours: int) -> Float64[np.ndarray, " n"]:
    """The squared distance of each point to its last neighbour; the first is itself."""
    parts = [
        np.partition(block, neighbours, axis=1)[:, neighbours]
        for block in squared_distances(points, points)
    ]
    return np.concatenate(parts)
