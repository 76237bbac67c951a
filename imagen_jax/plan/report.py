"""A plan for people and for programs: every figure of a `Planned` by name, as text or JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from imagen_jax.plan.programs import Planned
from imagen_jax.plan.topology import Topology

GIB = 2**30
DAY = 24 * 3600


def document(
    planned: Planned,
    topology: Topology,
    *,
    calls: int | None = None,
    price: float | None = None,
) -> dict[str, Any]:
    """Every figure, by name. `calls` is the number of steps of a schedule, `price` in dollars an
    hour of a chip; both are estimates where they rest on the compiler's time.
    """
    found = planned.estimate
    memory, roofline, seconds = found.memory, found.roofline, found.seconds
    figures: dict[str, Any] = {
        "what": planned.what,
        "name": planned.name,
        "topology": topology.name,
        "slices": topology.slices,
        "chips": topology.chips,
        "mesh": dict(planned.mesh),
        "parameters": planned.parameters,
        "images": planned.images,
        "local_images": planned.local_images,
        "hbm_per_device": {
            "arguments_gib": memory.arguments / GIB,
            "outputs_gib": memory.outputs / GIB,
            "temporaries_gib": memory.temporaries / GIB,
            "total_gib": memory.total / GIB,
            "capacity_gib": memory.capacity / GIB,
            "fits": memory.fits,
        },
        "model_tflop_per_image": planned.flops / 1e12,
        "hardware_tflop_per_device": found.flops / 1e12,
        "collectives": {k: dataclasses.asdict(v) for k, v in found.traffic.items()},
        "roofline_seconds": {**dataclasses.asdict(roofline), "binds": roofline.binds},
        "estimated_seconds": seconds,
        "estimate_refused": found.refused,
        "notes": list(planned.notes),
    }
    if seconds is not None:
        a_chip = planned.images / seconds / topology.chips
        figures["estimated_images_per_s_per_chip"] = a_chip
        figures["estimated_mfu"] = a_chip * planned.flops / topology.chip.peak_flops
        if calls is not None:
            days = calls * seconds / DAY
            figures["schedule_steps"] = calls
            figures["estimated_days"] = days
            if price is not None:
                figures["estimated_cost"] = days * 24 * price * topology.chips
    return figures


def as_json(documents: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> str:
    """All plans of a command and the versions of what made them."""
    return json.dumps({"versions": dict(versions), "plans": list(documents)}, indent=2)


def text(figures: Mapping[str, Any]) -> str:
    """One plan as lines for people."""
    hbm, roofline = figures["hbm_per_device"], figures["roofline_seconds"]
    mesh = " x ".join(f"{axis} {size}" for axis, size in figures["mesh"].items() if size > 1)
    verdict = "fits" if hbm["fits"] else "DOES NOT FIT"
    slices = f"{figures['slices']} slices of " if figures["slices"] > 1 else ""
    rows = {
        "program": f"{figures['what']} {figures['name']}, {figures['parameters'] / 1e6:.1f} M "
        "parameters",
        "devices": f"{slices}{figures['topology']}, {figures['chips']} chips, {mesh or 'one'}",
        "batch": f"{figures['images']}, {figures['local_images']:g} at once on a device",
        "memory": f"{hbm['total_gib']:.2f} of {hbm['capacity_gib']:.0f} GiB a device: {verdict} "
        f"(arguments {hbm['arguments_gib']:.2f}, outputs {hbm['outputs_gib']:.2f}, temporaries "
        f"{hbm['temporaries_gib']:.2f})",
        "work": f"{figures['model_tflop_per_image']:.3f} TFLOP an image by the model, "
        f"{figures['hardware_tflop_per_device']:.2f} a device and call in the program",
        "traffic": ", ".join(
            f"{found['count']} {kind} {found['payload'] / 2**20:.0f} MiB"
            for kind, found in figures["collectives"].items()
        )
        or "none",
        "roofline": f"{1000 * max(v for v in roofline.values() if not isinstance(v, str)):.1f} ms, "
        f"{roofline['binds']} binds (compute {1000 * roofline['compute']:.1f}, memory "
        f"{1000 * roofline['memory']:.1f}, network {1000 * roofline['network']:.1f})",
        "estimate": _time(figures),
    }
    if "estimated_days" in figures:
        cost = figures.get("estimated_cost")
        rows["schedule"] = (
            f"{figures['schedule_steps']:,} steps, estimated {figures['estimated_days']:.1f} days"
            + (f", {cost:,.0f} dollars" if cost is not None else "")
        )
    lines = [f"{name:<9} {value}" for name, value in rows.items()]
    return "\n".join([*lines, *(f"note      {note}" for note in figures["notes"])])


def _time(figures: Mapping[str, Any]) -> str:
    seconds = figures["estimated_seconds"]
    if seconds is None:
        return f"refused: {figures['estimate_refused']}"
    return (
        f"{1000 * seconds:.1f} ms by the compiler's model, "
        f"{figures['estimated_images_per_s_per_chip']:.1f} images/s a chip, "
        f"MFU {100 * figures['estimated_mfu']:.1f} %"
    )
