"""Named random keys, folded from one root seed and never chained (style: principle 14)."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import config
from imagen_jax.types import Keys, RandomKey

IMPL = "threefry2x32"  # whatever JAX_DEFAULT_PRNG_IMPL says


def root(seed: int | np.integer | np.ndarray | jax.Array) -> RandomKey:
    """The key that every other key of a run is folded from; a traced `seed` is uint32.

    Errors: ValueError for a seed that is no whole number from 0 to 2**32 - 1.
    """
    if not isinstance(seed, jax.core.Tracer):
        whole = (
            seed.item()
            if isinstance(seed, jax.Array | np.ndarray | np.integer) and not seed.ndim
            else seed
        )
        return jax.random.key(np.uint32(config.check_value(whole, config.Seed, "seed")), impl=IMPL)
    return jax.random.key(seed, impl=IMPL)


def fold(key: RandomKey, name: str, index: int | jax.Array = 0) -> RandomKey:
    """The key called `name` at `index` (a step, an image number); `index` may be traced.

    Source: the name's CRC-32 stands for it, so that keys do not depend on the order of calls.
    """
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), index)


def fold_each(key: RandomKey, name: str, indices: jax.Array | np.ndarray) -> Keys:
    """One key per image: image `i`'s randomness depends on the seed and `indices[i]` alone.

    Shapes: indices (b,) integers; result (b,).
    """
    return jax.vmap(lambda i: fold(key, name, i))(jnp.asarray(indices))


def normal_each(keys: Keys, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise, (b, *shape) float32, row i drawn from keys[i] alone."""
    return jax.vmap(lambda k: jax.random.normal(k, shape))(keys)


def fold_keys(keys: Keys, name: str) -> Keys:
    """The keys called `name` under each image's own key."""
    return jax.vmap(lambda k: fold(k, name))(keys)
