"""The device mesh: built from the sizes of its axes, and how arrays are sharded over it.

How networks stay split over it, their height too, is in `spatial_partitioning`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from imagen_jax import config
from imagen_jax.parallel import spatial_partitioning
from imagen_jax.parallel.auto_layout import Workload, choose_axes
from imagen_jax.parallel.axes import AXES, DATA, FSDP, RULES, SPATIAL, TENSOR

LANES = 128  # of a TPU's vector registers; a kernel's shards are not made narrower


def build(sizes: Mapping[str, int], *, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """Arrange all devices (or the ones given) as a (data, fsdp, spatial) mesh.

    `sizes` are those that `auto_layout.choose_axes` gives for these devices.
    Errors: ValueError when slices do not divide the data axis.
    """
    devices = jax.devices() if devices is None else devices
    slices = len({getattr(d, "slice_index", None) or 0 for d in devices})
    shape = tuple(sizes[axis] for axis in AXES)
    if slices > 1:
        if sizes[DATA] % slices:
            raise ValueError(
                f"mesh {sizes}: {slices} slices must divide the axis {DATA!r}, the only one that "
                "crosses slices"
            )
        inside = (sizes[DATA] // slices, *shape[1:])
        grid = mesh_utils.create_hybrid_device_mesh(
            inside, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def for_encoder(
    state_bytes: float, *, by_heads: bool, devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """Arrange this process's devices, or the ones given, for a text encoder of so many bytes.

    As few share its weights as memory asks for. They gather them layer by layer, each for captions
    of its own (`fsdp`), or each computes some heads and hidden units of all captions (`tensor`).
    """
    devices = jax.local_devices() if devices is None else devices
    workload = Workload(images=1, rows=1, state_bytes=state_bytes)
    chosen = choose_axes(config.Mesh(spatial=1), workload, devices=devices)
    grid = build(chosen, devices=devices)
    sizes = (chosen[DATA], chosen[FSDP])
    shape = (sizes[0], 1, sizes[1]) if by_heads else (*sizes, 1)
    return jax.sharding.Mesh(
        grid.devices.reshape(shape), (DATA, FSDP, TENSOR), axis_types=(AxisType.Auto,) * len(shape)
    )


@contextlib.contextmanager
def activate(devices: jax.sharding.Mesh) -> Iterator[None]:
    """Activate a mesh: networks traced inside keep batch and height split over it.

    What is drawn inside is the same on any mesh, whatever JAX_THREEFRY_PARTITIONABLE says.
    It goes round the call of a jitted function, not into it.
    """
    with (
        jax.set_mesh(devices),
        jax.threefry_partitionable(True),
        nn.logical_axis_rules(RULES),
        nn.intercept_methods(spatial_partitioning.keep_products_split),
    ):
        yield


def replicated_sharding(devices: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding of what is whole on every device."""
    return NamedSharding(devices, PartitionSpec())


def batch_sharding(devices: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding that splits the leading (batch) axis over `data` and `fsdp`."""
    return NamedSharding(devices, PartitionSpec((DATA, FSDP)))


def image_sharding(devices: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding of images (b, h, w, c): batch as above, height over `spatial`."""
    return NamedSharding(devices, PartitionSpec((DATA, FSDP), SPATIAL))


def to_global(tree: Any, sharding: NamedSharding) -> Any:
    """Make global arrays of host arrays and keys that are the same on every process."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def one(whole: Any) -> jax.Array:
        if jax.dtypes.issubdtype(whole.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(whole)))
        local = np.asarray(whole)
        return jax.make_array_from_callback(local.shape, sharding, lambda part: local[part])

    return jax.tree.map(one, tree)


def to_host(rows: jax.Array) -> np.ndarray:
    """Fetch a global array as numpy, whole on every process."""
    if rows.is_fully_addressable:
        return np.asarray(rows)
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def local_rows(devices: jax.sharding.Mesh, batch_size: int) -> tuple[int, ...]:
    """Return the rows of a global batch that this process's devices hold, in ascending order."""
    held = batch_sharding(devices).addressable_devices_indices_map((batch_size,))
    spans = [span for (span,) in held.values()]  # type: ignore[misc]  # never None
    return tuple(sorted({row for rows in spans for row in range(batch_size)[rows]}))


def kernel_sharding(rank: int, axis: int | None, devices: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding of a kernel: its axis of heads or hidden units over `tensor`."""
    return NamedSharding(
        devices, PartitionSpec(*(TENSOR if i == axis else None for i in range(rank)))
    )


def state_shardings(shapes: Any, devices: jax.sharding.Mesh, *, min_shard_bytes: int) -> Any:
    """Return a sharding for each array of a state: one of its axes over `fsdp`.

    That is the last axis (output channels) where it divides into shards of `LANES` or more, so that
    kernels are gathered and activations stay where they are; else the largest that divides, ties
    going to the last. Arrays below `min_shard_bytes` stay whole.
    Source: the size rule of arXiv:2010.11929's public code base, restated.
    """
    return jax.tree.map(lambda x: _sharding(x, devices, min_shard_bytes), shapes)


def _sharding(shape: Any, devices: jax.sharding.Mesh, least: int) -> NamedSharding:
    size = devices.shape[FSDP]
    # A typed key has no itemsize of its own and is always small.
    is_key = jax.dtypes.issubdtype(shape.dtype, jax.dtypes.prng_key)
    if size == 1 or is_key or shape.size * np.dtype(shape.dtype).itemsize < least:
        return replicated_sharding(devices)
    divisible = [i for i, n in enumerate(shape.shape) if n % size == 0]
    if not divisible:
        return replicated_sharding(devices)
    best = max(divisible, key=lambda i: (shape.shape[i], i))
    last = len(shape.shape) - 1
    if last in divisible and shape.shape[last] >= size * LANES:
        best = last
    return NamedSharding(
        devices, PartitionSpec(*(FSDP if i == best else None for i in range(best + 1)))
    )
