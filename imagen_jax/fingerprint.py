"""Sums over a tree's bits, by array: what was saved is known again, whatever it lies on.

A storage system that loses, repeats or flips bytes gives other arrays without an error. The sums
are of integers, so that neither the order of adding nor the sharding matters, and are computed
where the arrays are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

Fingerprint = dict[str, tuple[int, int]]  # two sums by the array's name

WIDE = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by the bytes of an element
ODD = (2_654_435_761, 2_246_822_519)  # of the two sums


def of(tree: Any) -> Fingerprint:
    """The fingerprint of a tree of arrays, whose leaves may be typed keys.

    Errors: ValueError for a leaf with elements of more than four bytes.
    """
    # Array by array: many have the same shape, and one program of all takes long to compile.
    sums = jax.device_get(
        {name(path): _sums(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    )
    return {what: (int(a), int(b)) for what, (a, b) in sums.items()}


def differences(found: Fingerprint, saved: Fingerprint) -> list[str]:
    """Names of the arrays found that are not as they were saved; those not found don't count."""
    return [what for what, sums in found.items() if tuple(saved.get(what, ())) != sums]


@jax.jit
def _sums(leaf: jax.Array) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """Two sums over an array's values, each mixed with its place."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    size = np.dtype(leaf.dtype).itemsize
    if size not in WIDE:
        raise ValueError(f"an array of {leaf.dtype} cannot be summed: 4 bytes an element at most")
    bits = jax.lax.bitcast_convert_type(leaf, WIDE[size]).astype(jnp.uint32)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, count in enumerate(bits.shape):  # no axis is merged with another: shardings stay
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place = place * jnp.uint32(count) + along
    first, second = (jnp.sum(_mixed(bits, place, odd), dtype=jnp.uint32) for odd in ODD)
    return first, second


def _mixed(bits: jax.Array, place: jax.Array, odd: int) -> jax.Array:
    """A number to add for a value at its place. Source: MurmurHash3's finaliser, public domain.

    Without mixing, changes that many values have in common could cancel in the sum.
    """
    x = bits ^ (place * jnp.uint32(odd) + jnp.uint32(odd >> 1))
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> jnp.uint32(16))


def name(path: tuple[Any, ...]) -> str:
    """An array's name from its path; tuple positions and fields as dictionary keys."""
    parts = (getattr(k, "key", getattr(k, "name", getattr(k, "idx", None))) for k in path)
    return "/".join(str(part) for part in parts)
