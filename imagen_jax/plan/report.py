"""A plan for people and for programs: every figure of a `Planned` by name, as text or JSON.

Several plans make a table.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from imagen_jax.config.decode import decode, decode_values
from imagen_jax.config.names import check_line
from imagen_jax.plan.compile import CompiledPlan
from imagen_jax.plan.roofline import MemoryUse
from imagen_jax.plan.topology import Topology

GIB = 2**30
DAY = 24 * 3600


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownPlan:
    """The figures of a plan that `plan_table` shows, by the names that a file has."""

    what: str
    name: str
    topology: str
    slices: int
    images: int
    mesh: Mapping[str, int]
    remat: str | None
    steps: int | None = None
    hbm_per_device: Mapping[str, Any]
    roofline_seconds: Mapping[str, Any]
    estimated_seconds: float | None = None
    estimated_images_per_s_per_chip: float | None = None
    estimated_mfu: float | None = None
    estimated_days: float | None = None


def plan_document(
    planned: CompiledPlan,
    topology: Topology,
    *,
    calls: int | None = None,
    price: float | None = None,
) -> dict[str, Any]:
    """Every figure, by name. `calls` is the number of steps of a schedule, `price` in dollars an
    hour of a chip; both are estimates where they rest on the compiler's time.
    """
    found, chips = planned.estimate, topology.chips
    if planned.devices is not None:
        chips = planned.devices // topology.chip.devices
    figures: dict[str, Any] = {
        "what": planned.what,
        "name": planned.name,
        "topology": topology.name,
        "slices": topology.slices,
        "chips": chips,
        "mesh": dict(planned.mesh),
        "parameters": planned.parameters,
        "images": planned.images,
        "local_images": planned.local_images,
        "remat": planned.remat,
        "steps": planned.steps,
        "hbm_per_device": _memory(found.memory),
        "model_tflop_per_image": planned.flops / 1e12,
        "hardware_tflop_per_device": found.flops / 1e12,
        "collectives": {k: dataclasses.asdict(v) for k, v in found.traffic.items()},
        "roofline_seconds": {**dataclasses.asdict(found.roofline), "binds": found.roofline.binds},
        "estimated_seconds": found.seconds,
        "estimate_refused": found.refused,
        "notes": list(planned.notes),
    }
    if found.seconds is None:
        return figures
    a_chip = planned.images / found.seconds / chips
    figures["estimated_images_per_s_per_chip"] = a_chip
    figures["estimated_mfu"] = a_chip * planned.flops / topology.chip.peak_flops
    return figures if calls is None else figures | _schedule(calls, found.seconds, chips, price)


def _schedule(calls: int, seconds: float, chips: int, price: float | None) -> dict[str, Any]:
    days = calls * seconds / DAY
    figures: dict[str, Any] = {"schedule_steps": calls, "estimated_days": days}
    if price is not None:
        figures["estimated_cost"] = days * 24 * price * chips
    return figures


def _memory(memory: MemoryUse) -> dict[str, Any]:
    return {
        "arguments_gib": memory.arguments / GIB,
        "outputs_gib": memory.outputs / GIB,
        "temporaries_gib": memory.temporaries / GIB,
        "total_gib": memory.total / GIB,
        "capacity_gib": memory.capacity / GIB,
        "fits": memory.fits,
    }


def plans_to_json(
    documents: Sequence[Mapping[str, Any]], *, versions: Mapping[str, str], date: str
) -> str:
    """All plans of a command, when they were made and the versions of what made them."""
    document = {"date": date, "versions": dict(versions), "plans": list(documents)}
    return json.dumps(document, indent=2)


def find_plans(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plans of what `plans_to_json` wrote, as `plan_table` shows them.

    Errors: ValueError when it holds none.
    """
    plans = decode(tuple[Mapping[str, Any], ...], document.get("plans"), "plans")
    for number, plan in enumerate(plans):
        _check_plan(plan, f"plans[{number}]")
    return list(map(dict, plans))


def _check_plan(plan: Mapping[str, Any], where: str) -> None:
    """Errors: ValueError for a figure of the table that is missing, or of another kind."""
    shown = {f.name: plan[f.name] for f in dataclasses.fields(ShownPlan) if f.name in plan}
    found = ShownPlan(**decode_values(ShownPlan, shown, where))
    for text in (found.what, found.name, found.topology, found.remat or "", *found.mesh):
        check_line(text, where)
    binds = found.roofline_seconds.get("binds")
    decode(Literal["compute", "memory", "network"], binds, f"{where}: binds")
    decode(float, found.roofline_seconds.get(str(binds)), f"{where}: {binds}")
    for name in ("total_gib", "capacity_gib"):
        decode(float, found.hbm_per_device.get(name), f"{where}: {name}")


def plan_text(figures: Mapping[str, Any]) -> str:
    """One plan as lines for people."""
    hbm, roofline = figures["hbm_per_device"], figures["roofline_seconds"]
    verdict = "fits" if hbm["fits"] else "DOES NOT FIT"
    slices = f"{figures['slices']} slices of " if figures["slices"] > 1 else ""
    rows = {
        "program": f"{figures['what']} {figures['name']}{_steps(figures)}, "
        f"{figures['parameters'] / 1e6:.1f} M parameters",
        "devices": f"{slices}{figures['topology']}, {figures['chips']} chips, {_mesh(figures)}",
        "batch": f"{figures['images']}, {figures['local_images']:g} at once on a device"
        + (f", remat {figures['remat']}" if figures["remat"] else ""),
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


def plan_table(plans: Sequence[Mapping[str, Any]]) -> str:
    """Plans, one a row, in Markdown."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "program": lambda f: f"{f['what']} `{f['name']}`" + _steps(f),
        "slice": lambda f: f["topology"] + (f" x {f['slices']}" if f["slices"] > 1 else ""),
        "batch": lambda f: str(f["images"]),
        "mesh": lambda f: _mesh(f),
        "remat": lambda f: f["remat"] or "-",
        "GiB a device": lambda f: "{total_gib:.1f} of {capacity_gib:.0f}".format(
            **f["hbm_per_device"]
        ),
        "bound": lambda f: _bound(f),
        "estimate": lambda f: _if_timed(f, "estimated_seconds", "{:#.3g} s"),
        "images/s a chip": lambda f: _if_timed(f, "estimated_images_per_s_per_chip", "{:.3g}"),
        "MFU": lambda f: _if_timed(f, "estimated_mfu", "{:.1%}"),
        "days": lambda f: _if_timed(f, "estimated_days", "{:.1f}"),
    }
    rows = [list(columns), ["---"] * len(columns)]
    rows += [[show(figures) for show in columns.values()] for figures in plans]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _if_timed(figures: Mapping[str, Any], name: str, form: str) -> str:
    value = figures.get(name)
    return "-" if value is None else form.format(value)


def _steps(figures: Mapping[str, Any]) -> str:
    return f", {figures['steps']} steps" if figures.get("steps") else ""


def _mesh(figures: Mapping[str, Any]) -> str:
    axes = (f"{axis} {size}" for axis, size in figures["mesh"].items() if size > 1)
    return " x ".join(axes) or "one"


def _bound(figures: Mapping[str, Any]) -> str:
    """Return the binding resource, and the time it allows."""
    roofline = figures["roofline_seconds"]
    return f"{roofline['binds']}, {roofline[roofline['binds']]:#.3g} s"


def _time(figures: Mapping[str, Any]) -> str:
    seconds = figures["estimated_seconds"]
    if seconds is None:
        return f"refused: {figures['estimate_refused']}"
    return (
        f"{1000 * seconds:.1f} ms by the compiler's model, "
        f"{figures['estimated_images_per_s_per_chip']:.1f} images/s a chip, "
        f"MFU {100 * figures['estimated_mfu']:.1f} %"
    )
