"""Memory that a stage takes for images larger than those it was trained on, before it compiles."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend import core

from imagen_jax import models
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.sample import stage_program
from imagen_jax.sample.lazy_params import LazyParams
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.types import Params

PLAIN = 1024  # pixels; a larger side of training is not taken for one that was trained on
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
    live: dict[core.Var, int] = {}
    now, most = 0, 0
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
    trained: TrainedStage,
    captions: EncodedText,
    size: tuple[int, int],
    *,
    images: int,
    devices: Any,
) -> None:
    """Refuse images larger than those a stage was trained on, where its network needs too much.

    `images` at once, over all `devices`, a mesh. Errors: ValueError with both sizes and a remedy.
    """
    side, there = trained.stage.size, available(devices)
    if there is None or math.prod(size) <= min(side, PLAIN) ** 2:
        return

    def needed(height: int, width: int) -> float:
        found = peak_bytes(_traced(trained, captions, (height, width), images))
        return FUSED * found / (1 if _on_host(devices) else devices.size)

    if (need := needed(*size)) <= there:
        return
    multiple = math.lcm(trained.stage.model.multiple(), trained.stage.factor)
    least, side = side, max(side, math.isqrt(math.prod(size)))
    while side > least and needed(side, side) > there:
        side = max(least, side * 3 // 4 // multiple * multiple)
    low = side // trained.stage.factor
    enlarged = f", which {low}x{low} are enlarged to" if trained.stage.is_super_resolution else ""
    count, fewer = ("1 image", "") if images == 1 else (f"{images} images", ", or a smaller batch")
    raise ValueError(
        f"{trained.stage.name} would need {need / 1e9:,.1f} GB of memory for {count} of "
        f"{size[0]}x{size[1]} pixels at once, and {there / 1e9:,.1f} GB are there; about "
        f"{side}x{side} pixels fit{enlarged}: give smaller ones{fewer}"
    )


def available(devices: Any) -> int | None:
    """Bytes that each device of a mesh has free, or the host where it is the device; None: unknown.

    Of the host it is what Linux says, and its limit for this control group.
    """
    if not _on_host(devices):
        stats = [d.memory_stats() or {} for d in devices.local_devices]
        return min(
            (s["bytes_limit"] - s["bytes_in_use"] for s in stats if "bytes_limit" in s),
            default=None,
        )
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
    trained: TrainedStage, captions: EncodedText, size: tuple[int, int], images: int
) -> core.Jaxpr:
    """The program that samples a batch of so many images, not compiled."""
    stage, factor = trained.stage, trained.stage.factor

    def array(shape: tuple[int, ...], dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((images, *shape), dtype)

    given = EncodedText(*(array(x.shape[1:], x.dtype) for x in captions))
    low = (size[0] // factor, size[1] // factor, 3)
    inputs = SamplerInputs(
        captions=given,
        negatives=given,
        indices=array((), np.int32),
        aug_level=array(()),
        low_res=array(low) if stage.is_super_resolution else None,
    )
    traced = stage_program.sample_stage.trace(
        _shapes(trained, captions),
        inputs,
        None,
        SamplerParams.from_config(stage.sampler),
        program=trained.program(),
        size=size,
    )
    return traced.jaxpr.jaxpr


def _shapes(trained: TrainedStage, captions: EncodedText) -> Params:
    """Shapes of the parameters; those that are stored are not read."""
    if not isinstance(trained.params, LazyParams):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trained.params)
    _, length, width = captions.text.shape
    options: dict[str, Any] = {"stage": trained.stage, "text_width": width, "text_length": length}
    return jax.eval_shape(
        lambda key: models.init(models.build(trained.stage.model), key, **options),
        jax.random.key(0),
    )
