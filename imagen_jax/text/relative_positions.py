"""Relative positions of tokens: buckets of distances, and the bias of each (T5, sec. 2.1)."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

MAX_DISTANCE = 128  # beyond it every token is equally far; no tensor tells, all T5s use it


def buckets_of(length: int, *, buckets: int) -> Int32[np.ndarray, "n n"]:
    """Bucket of each (query, key) pair; the upper half is for keys after the query.

    Source: T5 (arXiv:1910.10683) sec. 2.1; epsilon as in T5X, so that 16, 32, ... start a bucket.
    """
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = buckets // 2
    exact = half // 2  # shorter distances have a bucket each, longer ones share logarithmically
    far = np.maximum(np.abs(distance), 1).astype(np.float32) / exact
    scaled = np.log(far + np.finfo(np.float32).eps) / np.log(MAX_DISTANCE / exact)
    shared = np.minimum(exact + (scaled * (half - exact)).astype(np.int32), half - 1)
    magnitude = np.where(np.abs(distance) < exact, np.abs(distance), shared)
    return (magnitude + half * (distance > 0)).astype(np.int32)


class RelativeBias(nn.Module):
    """The bias that a head adds to its logits for each relative position."""

    heads: int
    buckets: int

    @nn.compact
    def __call__(self, length: int) -> Float[Array, "1 h n n"]:
        shape = (self.heads, self.buckets)
        table = self.param("rel_embedding", nn.initializers.normal(1.0), shape)
        bucket = buckets_of(length, buckets=self.buckets)
        return table.astype(jnp.float32)[:, bucket][None]
