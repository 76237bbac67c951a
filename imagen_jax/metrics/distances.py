"""Squared distances between all pairs of two sets of embeddings, in float64 and in blocks."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

ROWS = 1024  # of a block

Embeddings = Float[np.ndarray, "n d"]


def squared_distances(
    first: Embeddings, second: Float[np.ndarray, "m d"]
) -> Iterator[Float[np.ndarray, "rows m"]]:
    """Yield blocks of rows of `first`, in order; a column is an embedding of `second`."""
    other = second.astype(np.float64)
    lengths = np.square(other).sum(axis=1)
    for start in range(0, len(first), ROWS):
        rows = first[start : start + ROWS].astype(np.float64)
        own = np.square(rows).sum(axis=1)
        yield np.maximum(own[:, None] + lengths[None] - 2 * (rows @ other.T), 0.0)
