"""Accelerators: their memory, speed and links, and the compiler options we start from.

The figures are the vendors' (Cloud TPU pages, NVIDIA data sheets), rounded; a chip is what they
sell, which on `tpu7x` is two jax devices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 2**30

Options = Mapping[str, str | bool | int]


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One kind of chip."""

    name: str
    hbm_bytes: int
    peak_flops: float  # bfloat16, dense, a second
    hbm_bandwidth: float  # bytes a second
    links: int = 0  # to neighbouring chips, that can be used at once
    link_bandwidth: float = 0.0  # bytes a second of one link, one way
    devices: int = 1  # jax devices of a chip
    minimal_shape: tuple[int, ...] = ()  # chips of the smallest topology, which fills a host
    compiler_options: Options = field(default_factory=dict, hash=False)

    @property
    def network_bandwidth(self) -> float:
        """Bytes a second that a chip can send when all its links are busy."""
        return self.links * self.link_bandwidth


# A convolution's sharded kernel is gathered whole. Left to itself the partitioner makes a loop of
# shifted pieces of it (a windowed einsum), which is slower for our networks.
_ALL: Options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
_ASYNC: Options = {
    "xla_tpu_enable_async_collective_fusion": True,
    # The compiler refuses it together with asynchronous all-gathers on all but v5e.
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": False,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
    "xla_enable_async_all_gather": True,
}
_DATA_PARALLEL: Options = {
    "xla_tpu_enable_data_parallel_all_reduce_opt": True,
    "xla_tpu_data_parallel_opt_different_sized_ops": True,
}

TPUS: Mapping[str, Accelerator] = {
    tpu.name: tpu
    for tpu in (
        Accelerator(
            name="v4",
            hbm_bytes=32 * GIB,
            peak_flops=275e12,
            hbm_bandwidth=1.2e12,
            links=6,
            link_bandwidth=45e9,
            minimal_shape=(2, 2, 1),
            compiler_options={
                **_ALL,
                "xla_enable_async_all_gather": True,
                "xla_enable_async_collective_permute": True,
            },
        ),
        Accelerator(
            name="v5e",
            hbm_bytes=16 * GIB,
            peak_flops=197e12,
            hbm_bandwidth=0.82e12,
            links=4,
            link_bandwidth=45e9,
            minimal_shape=(2, 2),
            compiler_options={
                **_ALL,
                **_DATA_PARALLEL,
                **_ASYNC,
                "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
            },
        ),
        Accelerator(
            name="v5p",
            hbm_bytes=95 * GIB,
            peak_flops=459e12,
            hbm_bandwidth=2.8e12,
            links=6,
            link_bandwidth=90e9,
            minimal_shape=(2, 2, 1),
            compiler_options={
                **_ALL,
                **_DATA_PARALLEL,
                **_ASYNC,
                "xla_tpu_megacore_fusion_allow_ags": False,
                "xla_enable_async_collective_permute": True,
                "xla_tpu_enable_ag_backward_pipelining": True,
            },
        ),
        Accelerator(
            name="v6e",
            hbm_bytes=32 * GIB,
            peak_flops=918e12,
            hbm_bandwidth=1.64e12,
            links=4,
            link_bandwidth=90e9,
            minimal_shape=(2, 2),
            compiler_options={
                **_ALL,
                **_ASYNC,
                "xla_tpu_scoped_vmem_limit_kib": "98304",
                # The backward pass reads the kernels that the forward pass gathered: 2 bytes a
                # parameter more in memory, half the gathering.
                "xla_tpu_spmd_threshold_for_allgather_cse": "1000000",
            },
        ),
        Accelerator(
            name="tpu7x",
            hbm_bytes=192 * GIB,
            peak_flops=2307e12,
            hbm_bandwidth=7.4e12,
            links=6,
            link_bandwidth=90e9,
            devices=2,
            minimal_shape=(2, 2, 1),
            compiler_options={
                **_ALL,
                **_ASYNC,
                "xla_tpu_scoped_vmem_limit_kib": "65536",
            },
        ),
    )
}

GPUS: Mapping[str, Accelerator] = {
    gpu.name: gpu
    for gpu in (
        Accelerator(name="A100", hbm_bytes=80 * GIB, peak_flops=312e12, hbm_bandwidth=2.0e12),
        Accelerator(name="H100", hbm_bytes=80 * GIB, peak_flops=989e12, hbm_bandwidth=3.35e12),
        Accelerator(name="H200", hbm_bytes=141 * GIB, peak_flops=989e12, hbm_bandwidth=4.8e12),
    )
}

# What jax calls a device of each TPU generation.
_TPU_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
    "TPU v7x": "tpu7x",
}


def from_device_kind(device_kind: str) -> Accelerator | None:
    """Find the accelerator of a jax device by its `device_kind`; None for one not listed."""
    if device_kind in _TPU_KINDS:
        return TPUS[_TPU_KINDS[device_kind]]
    return next((gpu for name, gpu in GPUS.items() if name in device_kind), None)


def from_topology_name(name: str) -> Accelerator:
    """Find a TPU generation by name. Errors: ValueError that lists the generations."""
    if name not in TPUS:
        raise ValueError(f"no TPU generation {name!r}; there are {', '.join(TPUS)}")
    return TPUS[name]
