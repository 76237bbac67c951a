"""Estimates of a program's time: the compiler's model, held against the roofline.

Every time here is an estimate; nothing was run on a chip.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagen_jax.parallel import accelerators
from imagen_jax.plan import collectives

TOLERANCE = 0.98  # of the bound: the compiler's figures for work and for time are rounded


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes on one device."""

    arguments: int  # state and batch, at the start of a step
    outputs: int  # what of the results does not take the place of arguments
    temporaries: int
    capacity: int

    @property
    def total(self) -> int:
        return self.arguments + self.outputs + self.temporaries

    @property
    def fits(self) -> bool:
        return self.total <= self.capacity


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """The least time, in seconds, that each resource of a device allows."""

    compute: float
    memory: float
    network: float

    @property
    def bound(self) -> float:
        return max(self.compute, self.memory, self.network)

    @property
    def binds(self) -> str:
        """compute, memory or network."""
        return max(vars(self), key=lambda name: vars(self)[name])


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The compiler's estimate of a program, for one device and one call."""

    memory: MemoryUse
    flops: float  # of the program: recomputation and padding included
    bytes_accessed: float
    traffic: Mapping[str, collectives.CollectiveTraffic]
    roofline: Roofline
    seconds: float | None  # None when the compiler's model can't be believed
    refused: str = ""  # why

    def times(self, calls: int, *, memory: MemoryUse) -> "Estimate":
        """Return the estimate of so many calls one after another, at this memory."""
        return Estimate(
            memory=memory,
            flops=calls * self.flops,
            bytes_accessed=calls * self.bytes_accessed,
            traffic={kind: found.times(calls) for kind, found in self.traffic.items()},
            roofline=Roofline(**{n: calls * seconds for n, seconds in vars(self.roofline).items()}),
            seconds=None if self.seconds is None else calls * self.seconds,
            refused=self.refused,
        )


def estimate(
    compiled: Any,
    chip: accelerators.Accelerator,
    *,
    flops: float | None = None,
) -> Estimate:
    """Read the compiler's analyses of a program. It counts the body of a loop but once.

    `flops` (of one device), where known from elsewhere, replaces the compiler's where that is less.
    """
    cost, text = compiled.cost_analysis(), compiled.as_text()
    traffic = collectives.read_collectives(text)
    work = max(cost.get("flops", 0.0), flops or 0.0)
    moved = cost.get("bytes accessed", 0.0)
    roofline = Roofline(
        compute=work * chip.devices / chip.peak_flops,
        memory=moved * chip.devices / chip.hbm_bandwidth,
        network=collectives.bytes_sent(traffic) * chip.devices / chip.network_bandwidth,
    )
    loops = " while(" in text
    seconds, refused = _believed(cost.get("optimal_seconds"), roofline, loops=loops)
    return Estimate(
        memory=memory_of(compiled, chip),
        flops=work,
        bytes_accessed=moved,
        traffic=traffic,
        roofline=roofline,
        seconds=seconds,
        refused=refused,
    )


def memory_of(compiled: Any, chip: accelerators.Accelerator) -> MemoryUse:
    """Read what a program takes of a device's memory."""
    found = compiled.memory_analysis()
    return MemoryUse(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        capacity=chip.hbm_bytes // chip.devices,
    )


def _believed(
    seconds: float | None, roofline: Roofline, *, loops: bool
) -> tuple[float | None, str]:
    """The compiler's time, or why not."""
    if loops:
        return None, "the program has a loop, whose body the compiler's model counts once"
    if seconds is None:
        return None, "the compiler gave no time"
    if seconds < TOLERANCE * roofline.bound:
        return None, (
            f"the compiler's {1000 * seconds:.1f} ms are below the roofline, "
            f"{1000 * roofline.bound:.1f} ms of {roofline.binds}"
        )
    return seconds, ""
