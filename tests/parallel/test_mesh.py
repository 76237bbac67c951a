"""The mesh states what it needs, chooses what it is not told, and one rule shards every array."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.parallel import auto_layout, mesh

GB = 1e9


def _chips(count: int, kind: str = "TPU v5 lite", processes: int = 1) -> list:
    """Stand-ins for devices: what `choose` looks at."""
    return [
        SimpleNamespace(device_kind=kind, process_index=i * processes // count)
        for i in range(count)
    ]


def test_axes_fill_up_and_products_are_checked() -> None:
    assert dict(mesh.build(auto_layout.choose_axes()).shape) == {"data": 8, "fsdp": 1, "spatial": 1}
    assert dict(mesh.build(auto_layout.choose_axes(config.Mesh(fsdp=4))).shape) == {
        "data": 2,
        "fsdp": 4,
        "spatial": 1,
    }
    options = config.Mesh(fsdp=2, spatial=2)
    assert dict(mesh.build(auto_layout.choose_axes(options)).shape) == {
        "data": 2,
        "fsdp": 2,
        "spatial": 2,
    }
    for options in (config.Mesh(data=3), config.Mesh(data=2, fsdp=2), config.Mesh(fsdp=16)):
        with pytest.raises(ValueError, match=r"needs \d+ devices, found 8 in 1 process"):
            mesh.build(auto_layout.choose_axes(options))


def test_the_refusal_names_devices_processes_and_product() -> None:
    with pytest.raises(ValueError, match=r"'fsdp': 8.*needs 24 devices, found 16 in 4 process"):
        auto_layout.choose_axes(config.Mesh(data=3, fsdp=8), None, devices=_chips(16, processes=4))


@pytest.mark.parametrize(
    ("kind", "count", "images", "rows", "state", "expected"),
    [
        # 2.4 B parameters with EMA and gradients: 29 GB, a quarter of 16 GiB each
        ("TPU v5 lite", 256, 2048, 8, 28.8 * GB, {"data": 32, "fsdp": 8, "spatial": 1}),
        ("TPU v4", 256, 2048, 8, 28.8 * GB, {"data": 64, "fsdp": 4, "spatial": 1}),
        ("TPU v5p", 128, 2048, 8, 28.8 * GB, {"data": 64, "fsdp": 2, "spatial": 1}),
        ("TPU v5 lite", 4, 8, 64, 1 * GB, {"data": 1, "fsdp": 1, "spatial": 4}),
        ("TPU v5 lite", 4, 16, 64, 1 * GB, {"data": 2, "fsdp": 1, "spatial": 2}),
        ("TPU v5 lite", 4, 32, 64, 1 * GB, {"data": 4, "fsdp": 1, "spatial": 1}),
        # rows stay even: 8 of the coarsest map may be halved twice
        ("TPU v5 lite", 8, 8, 8, 1 * GB, {"data": 2, "fsdp": 1, "spatial": 4}),
        # unknown memory, no cliff
        ("cpu", 8, 8, 64, 100 * GB, {"data": 8, "fsdp": 1, "spatial": 1}),
        ("NVIDIA H100 80GB HBM3", 8, 8, 64, 57.6 * GB, {"data": 2, "fsdp": 4, "spatial": 1}),
    ],
)
def test_axes_are_chosen_for_memory_and_local_batch(
    kind: str, count: int, images: int, rows: int, state: float, expected: dict[str, int]
) -> None:
    workload = auto_layout.Workload(images=images, rows=rows, state_bytes=state)
    assert auto_layout.choose_axes(config.Mesh(), workload, devices=_chips(count, kind)) == expected


@pytest.mark.parametrize(
    ("kind", "local", "parts"),
    [
        ("TPU v5 lite", 8, 1),
        ("TPU v5 lite", 64, 8),
        ("TPU v5 lite", 20, 2),  # 10 at once; 5 would be less than 8
        ("TPU v4", 22, 2),
        ("TPU v4", 23, 1),
        ("TPU v4", 2, 1),
        ("cpu", 64, 1),
    ],
)
def test_micro_batches_leave_full_ones(kind: str, local: int, parts: int) -> None:
    assert auto_layout.micro_batches(local, _chips(1, kind)[0]) == parts


def test_what_is_given_is_kept() -> None:
    workload = auto_layout.Workload(images=8, rows=64, state_bytes=100 * GB)
    found = auto_layout.choose_axes(config.Mesh(data=4, spatial=1), workload, devices=_chips(16))
    assert found == {"data": 4, "fsdp": 4, "spatial": 1}


def test_several_slices_are_data_parallel() -> None:
    devices = [_Sliced(d, i // 4) for i, d in enumerate(jax.devices())]
    with pytest.raises(ValueError, match="2 slices must divide the axis 'data'"):
        mesh.build(
            auto_layout.choose_axes(config.Mesh(data=1, fsdp=8), devices=devices), devices=devices
        )
    grid = mesh.build(
        auto_layout.choose_axes(config.Mesh(fsdp=4), devices=devices), devices=devices
    ).devices
    assert [{d.slice_index for d in row.flat} for row in grid] == [{0}, {1}]


class _Sliced:
    """A CPU device that says which slice it is in."""

    def __init__(self, device: jax.Device, slice_index: int) -> None:
        self._device, self.slice_index = device, slice_index

    def __getattr__(self, name: str):
        return getattr(self._device, name)


def test_every_row_is_held_and_in_order() -> None:
    for options in (config.Mesh(), config.Mesh(fsdp=2, spatial=2)):
        assert mesh.local_rows(mesh.build(auto_layout.choose_axes(options)), 16) == tuple(range(16))


def test_pictures_are_split_by_height() -> None:
    devices = mesh.build(auto_layout.choose_axes(config.Mesh(data=2, spatial=4)))
    picture = jax.device_put(np.zeros((2, 8, 8, 3)), mesh.image_sharding(devices))
    assert {s.data.shape for s in picture.addressable_shards} == {(1, 2, 8, 3)}
    assert auto_layout.local_images(2, devices) == 1


def test_large_arrays_are_sharded_by_output_channels_or_their_largest_axis() -> None:
    devices = mesh.build(auto_layout.choose_axes(config.Mesh(fsdp=4)))
    shapes = {
        "kernel": jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32),
        "joined": jax.ShapeDtypeStruct((3, 3, 1024, 512), jnp.float32),
        "wide": jax.ShapeDtypeStruct((128, 64), jnp.float32),
        "odd": jax.ShapeDtypeStruct((129, 63), jnp.float32),
        "bias": jax.ShapeDtypeStruct((64,), jnp.float32),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
    }
    specs = {
        name: tuple(s.spec)
        for name, s in mesh.state_shardings(shapes, devices, min_shard_bytes=1024).items()
    }
    assert specs == {
        "kernel": (None, None, None, "fsdp"),  # output channels win a tie
        "joined": (None, None, None, "fsdp"),  # and where shards are wide enough
        "wide": ("fsdp",),
        "odd": (),
        "bias": (),
        "key": (),
    }


def test_an_axis_of_zero_is_refused() -> None:
    for name in ("data", "fsdp", "spatial"):
        with pytest.raises(ValueError, match=f"mesh: {name}=0"):
            dataclasses.replace(config.Mesh(), **{name: 0})
