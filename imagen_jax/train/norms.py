"""Norms by module group: which part of a network learns, and which one is about to break."""

import jax
import jax.numpy as jnp
import optax

from imagen_jax.types import Params

Norms = dict[str, jax.Array]  # scalars by tag


def by_group(tag: str, tree: Params) -> Norms:
    """The norm of each of the network's parts (its top-level names), and of all: `tag/stem`, `tag`.

    Read of the leaves once: what optax clips by is the same sums.
    """
    groups = {f"{tag}/{group}": optax.tree.norm(part) for group, part in tree.items()}
    return groups | {tag: optax.tree.norm(tree)}


def distance(averaged: Params, params: Params) -> jax.Array:
    """How far the moving average is from the parameters, as a share of their norm."""
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, averaged, params))
    return apart / jnp.maximum(optax.tree.norm(params), 1e-12)
