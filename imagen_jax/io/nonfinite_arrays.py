"""Finds arrays of a tree that hold an infinity or a NaN: weights that no training can mend."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool

from imagen_jax.io import checksums


def nonfinite_names(tree: Any) -> list[str]:
    """Names of the arrays that are not finite; on every process, if they are of all.

    Each device looks at the parts that it holds: programs of several devices, many at once, could
    wait for each other for ever.
    """
    leaves = {
        checksums.path_name(path): x
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
        if jax.dtypes.issubdtype(x.dtype, jnp.floating)
    }
    # Part by part: many have the same shape, and one program of all takes long to compile.
    parts = jax.device_get([[_is_finite(part) for part in _parts(x)] for x in leaves.values()])
    finite = np.array([all(found) for found in parts], np.bool_)
    if jax.process_count() > 1:
        finite = multihost_utils.process_allgather(finite).all(axis=0)
    return [name for name, sound in zip(leaves, finite, strict=True) if not sound]


def _parts(leaf: Any) -> list[Any]:
    """The parts of an array that this process holds, one of its copies each."""
    if not isinstance(leaf, jax.Array):
        return [leaf]
    return [shard.data for shard in leaf.addressable_shards if shard.replica_id == 0]


def require_finite(tree: Any, what: str) -> None:
    """Errors: ValueError, beginning with `what`, that names arrays that are not finite."""
    if names := nonfinite_names(tree):
        raise ValueError(
            f"{what} are not finite: {len(names)} arrays have NaN or infinity, such as "
            f"{', '.join(names[:3])}"
        )


@jax.jit
def _is_finite(x: jax.Array) -> Bool[Array, ""]:
    return jnp.isfinite(x).all()
