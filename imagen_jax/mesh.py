"""The device mesh: the only file that names its axes, and the rule that shards a state."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from imagen_jax import config

DATA, FSDP = "data", "fsdp"


def build(options: config.Mesh) -> jax.sharding.Mesh:
    """All devices as a (data, fsdp) mesh.

    Errors: ValueError when the axes' product is not the number of devices.
    """
    count = jax.device_count()
    sizes = {DATA: options.data, FSDP: options.fsdp}
    known = math.prod(s for s in sizes.values() if s > 0)
    filled = {axis: s if s > 0 else max(count // known, 1) for axis, s in sizes.items()}
    if math.prod(filled.values()) != count:
        raise ValueError(
            f"mesh {filled} needs {math.prod(filled.values())} devices, found {count} in "
            f"{jax.process_count()} process(es); set mesh.data and mesh.fsdp to fit"
        )
    return jax.make_mesh(
        tuple(filled.values()), tuple(filled), axis_types=(AxisType.Auto,) * len(filled)
    )


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The leading (batch) axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def state_shardings(shapes, mesh: jax.sharding.Mesh, *, min_shard_bytes: int):
    """A sharding for each array of a state: its largest divisible axis over `fsdp`.

    Arrays below `min_shard_bytes` stay whole; ties go to the last axis (output channels),
    so that kernels are gathered and activations stay where they are.
    Source: the size rule of arXiv:2010.11929's public code base, restated.
    """
    return jax.tree.map(lambda x: _sharding(x, mesh, min_shard_bytes), shapes)


def _sharding(shape: Any, mesh: jax.sharding.Mesh, least: int) -> NamedSharding:
    size = mesh.shape[FSDP]
    # A typed key has no itemsize of its own and is always small.
    is_key = jax.dtypes.issubdtype(shape.dtype, jax.dtypes.prng_key)
    if size == 1 or is_key or shape.size * np.dtype(shape.dtype).itemsize < least:
        return replicated(mesh)
    divisible = [i for i, n in enumerate(shape.shape) if n % size == 0]
    if not divisible:
        return replicated(mesh)
    best = max(divisible, key=lambda i: (shape.shape[i], i))
    return NamedSharding(
        mesh, PartitionSpec(*(FSDP if i == best else None for i in range(best + 1)))
    )
