"""Automatic layout: sizes of the mesh's axes for the devices, their memory and the batch."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from imagen_jax import config
from imagen_jax.parallel import accelerators
from imagen_jax.parallel.axes import DATA, FSDP, SPATIAL

# Below so many images a chip the TPU compiler rewrites convolutions, at 2 to 6 times the cost.
FULL_BATCH = 8
AUTOMATIC = config.Mesh()  # every axis chosen
STATE_SHARE = 0.25  # of a chip's memory, at most, for its part of state and gradients


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """The load of a layout: images computed at once, rows of features, bytes of state."""

    images: int  # computed at once, over all devices: a micro-batch
    rows: int  # of the coarsest feature map, what `spatial` splits least
    state_bytes: float = 0.0  # of state and gradients, over all devices


def choose_axes(
    options: config.Mesh = AUTOMATIC,
    workload: Workload | None = None,
    *,
    devices: Sequence[Any] | None = None,
) -> Mapping[str, int]:
    """Choose the size of every axis that the options leave open, for all devices or those given.

    `fsdp` is the smallest that brings a chip's part of the state below `STATE_SHARE` of its memory,
    `spatial` the smallest that leaves `FULL_BATCH` images to a chip; both stay at 1 where memory
    or kind of the devices is unknown, as on a CPU.
    Errors: ValueError when the axes' product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
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
    """The smallest power of two that leaves enough images to a chip, rows staying even."""
    spatial = 1
    while (
        workload.images * spatial < FULL_BATCH * devices
        and free % (2 * spatial) == 0
        and workload.rows % (4 * spatial) == 0
    ):
        spatial *= 2
    return spatial


def batch_shards(devices: jax.sharding.Mesh) -> int:
    """Count the devices over which the rows of a batch are split."""
    return devices.shape[DATA] * devices.shape[FSDP]


def local_images(images: int, devices: jax.sharding.Mesh) -> float:
    """Return the images that a device computes at once, whole ones or strips of so many."""
    return images / batch_shards(devices)


def micro_batches(local: int, device: Any) -> int:
    """Choose micro-batches: as many as leave `FULL_BATCH` images each to a TPU chip; else one."""
    fitting = (n for n in range(2, local // FULL_BATCH + 1) if local % n == 0)
    return max(fitting, default=1) if _are_tpus(device) else 1


def padded_batch_size(images: int, devices: jax.sharding.Mesh, *, passes: int, side: int) -> int:
    """Pad a batch to equal shares, and on TPUs to full ones where that is worth it.

    `passes` counts an image's rows in the network's batch. By the compiler's estimate throw-away
    rows that fill a batch cost less than its rewritten convolutions from 4 rows on, from 2 at 256
    px and above.
    """
    split = batch_shards(devices)
    local = -(-images // split)
    worth = 2 if side >= 256 else 4
    if _are_tpus(devices.devices.flat[0]) and worth <= local * passes < FULL_BATCH:
        local = FULL_BATCH // passes
    return local * split


def spatial_shards(devices: jax.sharding.Mesh) -> int:
    """Count the strips of rows into which an image is split."""
    return devices.shape[SPATIAL]
