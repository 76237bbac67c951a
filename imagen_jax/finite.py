"""Which arrays of a tree hold an infinity or a NaN: weights that no training can mend."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from imagen_jax import fingerprint


def broken(tree: Any) -> list[str]:
    """Names of the arrays that are not finite; on every process, if they are of all."""
    leaves = {fingerprint.name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    # One by one: many have the same shape, and one program of all takes long to compile.
    found = {
        name: _is_finite(x)
        for name, x in leaves.items()
        if jax.dtypes.issubdtype(x.dtype, jnp.floating)
    }
    return [name for name, finite in jax.device_get(found).items() if not finite]


def require(tree: Any, what: str) -> None:
    """Errors: ValueError, beginning with `what`, that names arrays that are not finite."""
    if names := broken(tree):
        raise ValueError(
            f"{what} are not finite: {len(names)} arrays have NaN or infinity, such as "
            f"{', '.join(names[:3])}"
        )


@jax.jit
def _is_finite(x: jax.Array) -> Bool[Array, ""]:
    return jnp.isfinite(x).all()
