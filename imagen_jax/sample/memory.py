"""Memory that a stage takes for images larger than those it was trained on, before it compiles."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from imagen_jax import models
from imagen_jax.diffusion.dials import SamplerParams
from imagen_jax.sample import stage_program
from imagen_jax.sample.stage_program import EncodedText, SamplerInputs, StageProgram, TrainedStage
from imagen_jax.sample.stored import LazyParams
from imagen_jax.types import Params

# XLA's share of `peak_bytes`: 0.49 to 0.64 for the embedded cascade, 0.49 where attention decides.
FUSED = 0.6
MEMINFO, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def peak_bytes(jaxpr: core.Jaxpr) -> int:
    """Most bytes that are alive at once beside the arguments, each operation's result being kept
    until its last use.

    A compiler that fuses operations needs less, one that orders them otherwise perhaps more.
    """
    last = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in _variables(eqn.invars)}
    last |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    live, now, most = {}, 0, 0
    for i, eqn in enumerate(jaxpr.eqns):
        results = {v: _bytes(v.aval) for v in eqn.outvars}
        live |= results
        now += sum(results.values())
        inner = max((peak_bytes(part) for part in _inside(eqn.params.values())), default=0)
        most = max(most, now + inner)
        for v in {*_variables(eqn.invars), *results}:
            if last.get(v, i) <= i:
                now -= live.pop(v, 0)
    return most


def _variables(atoms: Iterable[Any]) -> list[core.Var]:
    return [a for a in atoms if not isinstance(a, core.Literal)]


def _bytes(aval: Any) -> int:
    shape = getattr(aval, "shape", ())
    return math.prod(shape) * getattr(aval.dtype, "itemsize", 0)


def _inside(values: Iterable[Any]) -> Iterable[core.Jaxpr]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _inside(value)


def check(
    painter: TrainedStage,
    captions: EncodedText,
    sides: tuple[int, int],
    *,
    images: int,
    devices: Any,
) -> None:
    """Refuse images of larger sides than a stage was trained on, where its network needs too much.

    `images` at once, over all `devices`, a mesh. Errors: ValueError with both sizes and a remedy.
    """
    size, there = painter.stage.size, available(devices)
    if there is None or math.prod(sides) <= size**2:
        return

    def needed(height: int, width: int) -> float:
        found = peak_bytes(_traced(painter, captions, (height, width), images))
        return FUSED * found / (1 if _on_host(devices) else devices.size)

    if (need := needed(*sides)) <= there:
        return
    multiple = math.lcm(painter.stage.model.multiple(), painter.stage.factor)
    side = max(size, math.isqrt(math.prod(sides)))
    while side > size and needed(side, side) > there:
        side = max(size, side * 3 // 4 // multiple * multiple)
    low = side // painter.stage.factor
    enlarged = f", which {low}x{low} are enlarged to" if painter.stage.is_super_resolution else ""
    count, fewer = ("1 image", "") if images == 1 else (f"{images} images", ", or a smaller batch")
    raise ValueError(
        f"{painter.stage.name} would need {need / 1e9:,.1f} GB of memory for {count} of "
        f"{sides[0]}x{sides[1]} pixels at once, and {there / 1e9:,.1f} GB are there; about "
        f"{side}x{side} pixels fit{enlarged}: give smaller ones{fewer}"
    )


def available(devices: Any) -> int | None:
    """Bytes that each device of a mesh has free, or the host where it is the device; None: unknown.

    Of the host it is what Linux says, and its limit for this control group.
    """
    if not _on_host(devices):
        stats = [d.memory_stats() or {} for d in devices.local_devices]
        free = [s["bytes_limit"] - s["bytes_in_use"] for s in stats if "bytes_limit" in s]
        return min(free, default=None)
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    free = 1024 * int(lines["MemAvailable"].split()[0])
    limit, used = (GROUP / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return free


def _on_host(devices: Any) -> bool:
    return devices.devices.flat[0].platform == "cpu"


def _traced(
    painter: TrainedStage, captions: EncodedText, sides: tuple[int, int], images: int
) -> core.Jaxpr:
    """The program that samples a batch of so many images, not compiled."""
    stage, factor = painter.stage, painter.stage.factor

    def array(shape: tuple[int, ...], dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((images, *shape), dtype)

    given = EncodedText(*(array(x.shape[1:], x.dtype) for x in captions))
    canvas = SamplerInputs(
        captions=given,
        negatives=given,
        keys=jax.eval_shape(lambda: jax.vmap(jax.random.key)(jnp.arange(images))),
        aug_level=array(()),
        low_res=array((sides[0] // factor, sides[1] // factor, 3))
        if stage.is_super_resolution
        else None,
    )
    program, dials = StageProgram.of(painter, sides), SamplerParams.of(stage.sampler)
    traced = stage_program.sample_stage.trace(
        _shapes(painter, captions), canvas, None, dials, program=program
    )
    return traced.jaxpr.jaxpr


def _shapes(painter: TrainedStage, captions: EncodedText) -> Params:
    """Of the parameters; those that are stored are not read."""
    if not isinstance(painter.params, LazyParams):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), painter.params)
    _, length, width = captions.text.shape
    options = {"stage": painter.stage, "text_width": width, "text_length": length}
    return jax.eval_shape(
        lambda key: models.init(painter.module, key, **options), jax.random.key(0)
    )
