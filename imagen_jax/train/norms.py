"""Norms by module group: which part of a network learns, and which one is about to break."""

import jax
import jax.numpy as jnp
import optax

from imagen_jax.types import Params

Norms = dict[str, jax.Array]  # scalars by tag


def group_norms(tag: str, tree: Params) -> Norms:
    """The norm of each of the network's parts (its top-level names), and of all: `tag/stem`, `tag`.

    Leaves are read once: the compiler shares the sums of groups and whole.
    """
    groups = {f"{tag}/{group}": optax.tree.norm(part) for group, part in tree.items()}
    return groups | {tag: optax.tree.norm(tree)}


@jax.jit
def state_norms(params: Params, averaged: Params) -> Norms:
    """Norms of the parameters, and how far their moving average is from them, as a share."""
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, averaged, params))
    found = group_norms("param_norm", params)
    return found | {"ema_distance": apart / jnp.maximum(found["param_norm"], 1e-12)}
