"""Sums over a tree's bits, by array: what was saved is known again, whatever it lies on.

A storage system that loses, repeats or flips bytes gives other arrays without an error. The sums
are of integers, so that neither the order of adding nor the sharding matters. Each device sums the
part that it holds: no values move between devices or processes, only the sums do, at the end.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, UInt32

Fingerprint = dict[str, tuple[int, int]]  # two sums by the array's name

WIDE = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by the bytes of an element
ODD = (2_654_435_761, 2_246_822_519)  # of the two sums


def compute(tree: Any) -> Fingerprint:
    """The fingerprint of a tree of arrays, whose leaves may be typed keys; on every process.

    Errors: ValueError for a leaf with elements of more than four bytes.
    """
    leaves = {path_name(path): _bits(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    # Part by part: many have the same shape, and one program of all takes long to compile.
    parts = jax.device_get([[_sums(*part) for part in _parts(x)] for x in leaves.values()])
    sums = np.zeros((len(leaves), 2), np.uint32)
    for row, found in enumerate(parts):
        sums[row] = np.sum([(0, 0), *found], axis=0, dtype=np.uint32)
    if jax.process_count() > 1:
        sums = np.sum(multihost_utils.process_allgather(sums), axis=0, dtype=np.uint32)
    return {what: (int(a), int(b)) for what, (a, b) in zip(leaves, sums, strict=True)}


def changed_names(found: Fingerprint, saved: Fingerprint) -> list[str]:
    """Names of the arrays found that are not as they were saved; those not found don't count."""
    return [what for what, sums in found.items() if tuple(saved.get(what, ())) != sums]


def _bits(leaf: Any) -> Any:
    """A leaf as plain numbers. Errors: as `compute`."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if np.dtype(leaf.dtype).itemsize not in WIDE:
        raise ValueError(f"an array of {leaf.dtype} cannot be summed: 4 bytes an element at most")
    return leaf


def _parts(leaf: Any) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """The parts of an array that this process sums, with their first index and the whole's shape.

    Of copies the first counts. What is not of all processes, each has; there process 0's counts.
    """
    shape = np.asarray(leaf.shape, np.uint32)
    if not isinstance(leaf, jax.Array) or (leaf.is_fully_addressable and jax.process_count() > 1):
        if jax.process_index() == 0:
            yield leaf, np.zeros_like(shape), shape
        return
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            yield shard.data, _first(shard.index), shape


def _first(index: Sequence[slice]) -> np.ndarray:
    return np.asarray([along.start or 0 for along in index], np.uint32)


@jax.jit
def _sums(
    part: jax.Array, first: UInt32[Array, " axes"], whole: UInt32[Array, " axes"]
) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """Two sums over values, each mixed with its place in the whole array."""
    if part.dtype == jnp.bool_:
        part = part.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(part, WIDE[np.dtype(part.dtype).itemsize])
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):  # no axis is merged with another
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place = place * whole[axis] + along + first[axis]
    bits = bits.astype(jnp.uint32)
    one, other = (jnp.sum(_mixed(bits, place, odd), dtype=jnp.uint32) for odd in ODD)
    return one, other


def _mixed(bits: jax.Array, place: jax.Array, odd: int) -> jax.Array:
    """A number to add for a value at its place. Source: MurmurHash3's finaliser, public domain.

    Without mixing, changes that many values have in common could cancel in the sum.
    """
    x = bits ^ (place * jnp.uint32(odd) + jnp.uint32(odd >> 1))
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> jnp.uint32(16))


def path_name(path: tuple[Any, ...]) -> str:
    """An array's name from its path; tuple positions and fields as dictionary keys."""
    parts = (getattr(k, "key", getattr(k, "name", getattr(k, "idx", None))) for k in path)
    return "/".join(str(part) for part in parts)
