"""The device mesh: the only file that names its axes, chooses a layout and shards a state.

| axis | what it splits |
|---|---|
| `data` | pictures; over several slices, too |
| `fsdp` | pictures as well, and parameters, optimiser state and EMA |
| `spatial` | the height of pictures: neighbours exchange the rows at their borders |
| `tensor` | a text encoder's heads and hidden units, in the place of `spatial` |
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from imagen_jax import config
from imagen_jax.parallel import accelerators

DATA, FSDP, SPATIAL, TENSOR = "data", "fsdp", "spatial", "tensor"
AXES = (DATA, FSDP, SPATIAL)
RULES = (("batch", (DATA, FSDP)), ("height", SPATIAL))  # what the networks call their axes

# Below so many pictures a chip the TPU compiler rewrites convolutions, at 2 to 6 times the cost.
FULL_BATCH = 8
STATE_SHARE = 0.25  # of a chip's memory, at most, for its part of state and gradients
LANES = 128  # of a TPU's vector registers; a kernel's shards are not made narrower


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What a layout has to carry."""

    images: int  # computed at once, over all devices: a micro-batch
    rows: int  # of the coarsest feature map, what `spatial` splits least
    state_bytes: float = 0.0  # of state and gradients, over all devices


def build(
    options: config.Mesh,
    *,
    workload: Workload | None = None,
    devices: Sequence[Any] | None = None,
) -> jax.sharding.Mesh:
    """All devices (or the ones given) as a (data, fsdp, spatial) mesh.

    Axes of -1 are chosen for the workload: `choose`.
    Errors: ValueError when the axes' product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = choose_axes(options, workload, devices=devices)
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
    """This process's devices, or the ones given, to hold a text encoder of so many bytes.

    As few share its weights as memory asks for. They gather them layer by layer, each for captions
    of its own (`fsdp`), or each computes some heads and hidden units of all captions (`tensor`).
    """
    devices = jax.local_devices() if devices is None else devices
    grid = build(
        config.Mesh(spatial=1),
        workload=Workload(images=1, rows=1, state_bytes=state_bytes),
        devices=devices,
    )
    sizes = (grid.shape[DATA], grid.shape[FSDP])
    shape = (sizes[0], 1, sizes[1]) if by_heads else (*sizes, 1)
    return jax.sharding.Mesh(
        grid.devices.reshape(shape), (DATA, FSDP, TENSOR), axis_types=(AxisType.Auto,) * len(shape)
    )


@contextlib.contextmanager
def activate(devices: jax.sharding.Mesh) -> Iterator[None]:
    """Networks that are traced inside keep batch and height split as the mesh says.

    What is drawn inside is the same on any mesh, whatever JAX_THREEFRY_PARTITIONABLE says.
    It goes round the call of a jitted function, not into it.
    """
    with (
        jax.set_mesh(devices),
        jax.threefry_partitionable(True),
        nn.logical_axis_rules(RULES),
        nn.intercept_methods(_keep_products_split),
    ):
        yield


def constrain_to_mesh(x: jax.Array) -> jax.Array:
    """Inside `use`: x with its batch split over the mesh, and its height if it has one.

    Rank 4 is pictures or their features (b, h, w, c). Elsewhere x itself.
    """
    axes = ("batch", "height", None, None) if x.ndim == 4 else ("batch",) + (None,) * (x.ndim - 1)
    return nn.with_logical_constraint(x, axes)


def _keep_products_split(
    layer: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """Every product says, of its result and so of its gradient, that the kernel is to be gathered.

    Left to itself the partitioner lets the sharding of a kernel's channels spread to the features
    and gathers their batch instead: each chip then holds the maps of all pictures.
    """
    result = layer(*args, **kwargs)
    is_product = isinstance(context.module, nn.Conv | nn.ConvTranspose | nn.Dense)
    return constrain_to_mesh(result) if is_product and context.method_name == "__call__" else result


def choose_axes(
    options: config.Mesh, workload: Workload | None, *, devices: Sequence[Any]
) -> Mapping[str, int]:
    """The size of every axis: those that the options give, the others as the workload needs.

    `fsdp` is the smallest that brings a chip's part of the state below `STATE_SHARE` of its memory,
    `spatial` the smallest that leaves `FULL_BATCH` pictures to a chip; both stay at 1 where memory
    or kind of the devices is unknown, as on a CPU.
    Errors: ValueError when the axes' product is not the number of devices.
    """
    count = len(devices)
    chip = accelerators.from_device_kind(devices[0].device_kind)
    spatial, fsdp = options.spatial, options.fsdp
    free = count // math.prod(s for s in (options.data, options.fsdp, options.spatial) if s > 0)
    if spatial == -1:
        spatial = _spatial(workload, count, free) if workload and _are_tpus(devices[0]) else 1
        free //= spatial
    if fsdp == -1:
        memory = chip.hbm_bytes / chip.devices if chip else math.inf
        state = workload.state_bytes if workload else 0.0
        fsdp = _fsdp(state, free, STATE_SHARE * memory)
    known = fsdp * spatial
    data = max(count // known, 1) if options.data == -1 else options.data
    sizes = {DATA: data, FSDP: fsdp, SPATIAL: spatial}
    if math.prod(sizes.values()) != count:
        processes = len({d.process_index for d in devices})
        raise ValueError(
            f"mesh {sizes} needs {math.prod(sizes.values())} devices, found {count} in "
            f"{processes} process(es); set mesh.data, mesh.fsdp and mesh.spatial to fit, or to -1"
        )
    return sizes


def _are_tpus(device: Any) -> bool:
    chip = accelerators.from_device_kind(device.device_kind)
    return chip is not None and chip.name in accelerators.TPUS


def _fsdp(state_bytes: float, free: int, share: float) -> int:
    """The smallest power of two that brings the state below its share, if there is one."""
    fsdp = 1
    while state_bytes / fsdp > share and free % (2 * fsdp) == 0:
        fsdp *= 2
    return fsdp


def _spatial(workload: Workload, devices: int, free: int) -> int:
    """The smallest power of two that leaves enough pictures to a chip, rows staying even."""
    spatial = 1
    while (
        workload.images * spatial < FULL_BATCH * devices
        and free % (2 * spatial) == 0
        and workload.rows % (4 * spatial) == 0
    ):
        spatial *= 2
    return spatial


def batch_shards(devices: jax.sharding.Mesh) -> int:
    """Over how many devices the rows of a batch, pictures or captions, are split."""
    return devices.shape[DATA] * devices.shape[FSDP]


def local_images(images: int, devices: jax.sharding.Mesh) -> float:
    """Pictures that a device computes at once, whole ones or strips of so many."""
    return images / batch_shards(devices)


def micro_batches(local: int, device: Any) -> int:
    """As many parts as leave `FULL_BATCH` of a TPU chip's pictures to each; elsewhere one."""
    fitting = (n for n in range(2, local // FULL_BATCH + 1) if local % n == 0)
    return max(fitting, default=1) if _are_tpus(device) else 1


def padded_batch_size(pictures: int, devices: jax.sharding.Mesh, *, passes: int, side: int) -> int:
    """So many pictures, or more: equal shares, and on TPUs full ones where that is worth it.

    `passes` counts a picture's rows in the network's batch. By the compiler's estimate throw-away
    rows that fill a batch cost less than its rewritten convolutions from 4 rows on, from 2 at 256
    px and above.
    """
    split = batch_shards(devices)
    local = -(-pictures // split)
    worth = 2 if side >= 256 else 4
    if _are_tpus(devices.devices.flat[0]) and worth <= local * passes < FULL_BATCH:
        local = FULL_BATCH // passes
    return local * split


def spatial_shards(devices: jax.sharding.Mesh) -> int:
    """Into how many strips of rows a picture is split."""
    return devices.shape[SPATIAL]


def replicated_sharding(devices: jax.sharding.Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(devices, PartitionSpec())


def batch_sharding(devices: jax.sharding.Mesh) -> NamedSharding:
    """The leading (batch) axis split over `data` and `fsdp`."""
    return NamedSharding(devices, PartitionSpec((DATA, FSDP)))


def image_sharding(devices: jax.sharding.Mesh) -> NamedSharding:
    """Pictures (b, h, w, c): the batch split as every other, the height over `spatial`."""
    return NamedSharding(devices, PartitionSpec((DATA, FSDP), SPATIAL))


def to_global(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays and keys, the same on every process, as global arrays."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def one(whole: Any) -> jax.Array:
        if jax.dtypes.issubdtype(whole.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(whole)))
        local = np.asarray(whole)
        return jax.make_array_from_callback(local.shape, sharding, lambda part: local[part])

    return jax.tree.map(one, tree)


def to_host(rows: jax.Array) -> np.ndarray:
    """A global array as numpy, whole on every process."""
    if rows.is_fully_addressable:
        return np.asarray(rows)
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def local_rows(devices: jax.sharding.Mesh, batch_size: int) -> tuple[int, ...]:
    """The rows of a global batch that this process's devices hold, in ascending order."""
    held = batch_sharding(devices).addressable_devices_indices_map((batch_size,))
    return tuple(sorted({row for (rows,) in held.values() for row in range(batch_size)[rows]}))


def constrain_products(rank: int, axis: int | None, devices: jax.sharding.Mesh) -> NamedSharding:
    """A kernel with the axis of heads or hidden units split over `tensor`; whole without one."""
    return NamedSharding(
        devices, PartitionSpec(*(TENSOR if i == axis else None for i in range(rank)))
    )


def state_shardings(shapes: Any, devices: jax.sharding.Mesh, *, min_shard_bytes: int) -> Any:
    """A sharding for each array of a state: one of its axes over `fsdp`.

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
