"""TPU slices that are not here, as the TPU compiler describes them.

`use_compiler` has to be called before jax is imported; `imagen plan` does.
"""

import importlib.util
import math
import operator
import os
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from imagen_jax.config.sentences import shorten
from imagen_jax.parallel import accelerators

SPELLING = "GENERATION:SHAPE, such as v5e:16x16 or v4:8x8x4"
# On a real TPU VM these would keep jax from finding its slice: they are for planning alone.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # no questions to a metadata server that is not there
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",  # any: it would look for the one it runs on
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # another process may plan, too
}


@dataclass(frozen=True, kw_only=True)
class Topology:
    """A slice, or several equal ones."""

    name: str  # v5e:16x16
    chip: accelerators.Accelerator
    chips: int  # of all slices
    slices: int
    devices: Sequence[Any]  # described, not present


def use_compiler(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let this process compile for TPUs on its CPU.

    Errors: ValueError without libtpu.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "planning needs the TPU compiler, which is not installed: "
            "pip install 'imagen_jax[plan]'"
        )
    environment.update(ENVIRONMENT)


def describe_mismatch(
    requirements: Sequence[str] | None = None, installed: str | None = None
) -> str:
    """Describe a mismatch of the installed compiler and jax; "" where there is none.

    jax names the libtpu it is released with. Another one compiles, too, but 0.0.52 took 20 times as
    long under jax 0.10.2 as its own 0.0.42, and its model of time counted negative seconds.
    """
    requirements = metadata.requires("jax") or [] if requirements is None else requirements
    installed = metadata.version("libtpu") if installed is None else installed
    wanted = next((m[1] for r in requirements if (m := re.match(r"libtpu==([\d.]+)\.\*", r))), None)
    if wanted is None or f"{installed}.".startswith(f"{wanted}."):
        return ""
    return (
        f"libtpu {installed} is not the one that this jax is released with: plans may take 20 "
        f"times as long and their estimates be wrong; pip install 'libtpu=={wanted}.*'"
    )


def parse_topology(name: str) -> tuple[accelerators.Accelerator, tuple[int, ...]]:
    """Generation and shape of `v5e:16x16`.

    Errors: ValueError for another spelling, an unknown generation or a shape of other dimension.
    """
    found = re.fullmatch(r"([a-z0-9]+):([0-9]{1,6}(?:x[0-9]{1,6}){1,5})", name)
    if found is None:
        raise ValueError(f"topology {shorten(name)} is not spelled {SPELLING}")
    chip = accelerators.from_topology_name(found[1])
    shape = tuple(int(side) for side in found[2].split("x"))
    if len(shape) != len(chip.minimal_shape):
        raise ValueError(
            f"topology {shorten(name)}: {chip.name} slices have {len(chip.minimal_shape)} "
            f"dimensions, such as {chip.name}:{'x'.join(map(str, chip.minimal_shape))}"
        )
    return chip, shape


def describe_topology(name: str, *, slices: int = 1) -> Topology:
    """Return the devices of a topology, from the TPU compiler.

    Errors: ValueError for a name that `parse_topology` refuses, or a shape that the compiler
    doesn't know.
    """
    from jax.experimental import topologies

    chip, shape = parse_topology(name)
    options: dict[str, Any] = {} if slices == 1 else {"num_slices": slices}
    if chip.name == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device
    if shape != chip.minimal_shape and all(map(operator.le, shape, chip.minimal_shape)):
        options["chips_per_host_bounds"] = (*shape, 1)[:3]  # a part of a host
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:
        if type(error).__name__ != "JaxRuntimeError":
            raise
        least = "x".join(map(str, chip.minimal_shape))
        raise ValueError(
            f"the TPU compiler refuses topology {name!r} ({str(error).splitlines()[0]}); sides of "
            f"{chip.name} are multiples of {chip.name}:{least}"
        ) from error
    chips = slices * math.prod(shape)
    if len(found.devices) != chips * chip.devices:
        raise ValueError(
            f"topology {name!r}: expected {chips * chip.devices} devices of {chips} chips, the "
            f"compiler describes {len(found.devices)}"
        )
    return Topology(name=name, chip=chip, chips=chips, slices=slices, devices=found.devices)
