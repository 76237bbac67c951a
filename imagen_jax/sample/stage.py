"""One stage over all prompts, batch by batch; the devices never wait for the host.

Stages do not overlap: a batch fills all devices, and nothing measurable is lost between stages.
"""

import dataclasses
from collections import deque

import jax
import numpy as np

from imagen_jax import config
from imagen_jax.diffusion import samplers
from imagen_jax.diffusion.dials import SamplerParams
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.sample import finite, memory, stage_program
from imagen_jax.sample.progress import SamplingCallbacks, Watch
from imagen_jax.sample.request import Request
from imagen_jax.sample.stage_program import (
    EncodedPrompts,
    SamplerInputs,
    StageProgram,
    TrainedStage,
)
from imagen_jax.types import Params

AHEAD = 1  # batches that are begun while one is fetched


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StageJob:
    """What a stage has to paint; low_res float32 (p, h, w, 3) in [-1, 1], None for a base."""

    painter: TrainedStage
    prompts: EncodedPrompts
    sides: tuple[int, int]  # height, width
    low_res: np.ndarray | None
    seed: int
    request: Request


def sample_batches(job: StageJob, *, batch_size: int, following: SamplingCallbacks) -> np.ndarray:
    """All pictures, (p, h, w, 3) float32 in [-1, 1].

    Errors: finite.NotFinite at the first batch with one that is not; it is not kept.
    """
    indices, name = job.prompts.indices, job.painter.stage.name
    count = len(indices)
    devices, batch_size = _layout(job.painter.stage, job.sides, batch_size)
    params = job.painter.placed(mesh.replicated_sharding(devices))
    started: deque[tuple[int, jax.Array | np.ndarray, jax.Array | None]] = deque()
    painted: list[np.ndarray] = []

    def finish() -> None:
        start, images, sound = started.popleft()
        if sound is not None:
            _check(job, params, sound, indices[start:])
        kept = isinstance(images, np.ndarray)
        painted.append(images if kept else mesh.to_host(images)[: count - start])
        following.finished(name, int(indices[start]), painted[-1])

    for start in range(0, count, batch_size):
        images, sound = following.recall(name, int(indices[start])), None
        if images is None:
            # Rows past the end repeat the last prompt and are thrown away.
            rows = np.minimum(np.arange(start, start + batch_size), count - 1)
            with mesh.activate(devices):
                canvas = mesh.to_global(_canvas(job, rows), mesh.batch_sharding(devices))
                shown = following.of(name, int(indices[start]), count - start)
                images = _paint(job, params, canvas, rows, shown)
                sound = finite.is_finite_each(images)
        started.append((start, images, sound))
        if len(started) > AHEAD:
            finish()
    while started:
        finish()
    return np.concatenate(painted)


def check_memory(
    painter: TrainedStage, prompts: EncodedPrompts, sides: tuple[int, int], *, batch_size: int
) -> None:
    """Errors: ValueError for batches that the memory of the devices can't hold: `memory.check`."""
    devices, images = _layout(painter.stage, sides, batch_size)
    memory.check(painter, prompts.captions, sides, images=images, devices=devices)


def _layout(
    stage: config.Stage, sides: tuple[int, int], batch_size: int
) -> tuple[jax.sharding.Mesh, int]:
    """The devices, laid out for a batch, and the pictures that fill it."""
    passes = 1 if stage.sampler.guidance_weight == 1.0 else 2  # rows of the network's batch
    workload = auto_layout.Workload(
        images=passes * batch_size, rows=sides[0] // stage.model.multiple()
    )
    devices = mesh.build(auto_layout.choose_axes(workload=workload))
    return devices, auto_layout.padded_batch_size(
        batch_size, devices, passes=passes, side=min(sides)
    )


def _canvas(job: StageJob, rows: np.ndarray) -> SamplerInputs:
    stage, part = job.painter.stage, job.prompts.rows(rows)
    picture, keep = job.request.at(job.sides, rows)
    return SamplerInputs(
        captions=part.captions,
        negatives=part.negatives or part.captions.nulled(),
        keys=stage_program.image_keys(stage, job.seed, part.indices),
        aug_level=np.full(len(rows), stage.noise_conditioning.sample_level, np.float32),
        low_res=None if job.low_res is None else job.low_res[rows],
        picture=picture,
        known=None if keep is None else samplers.KnownPixels(picture, keep),
    )


def _check(job: StageJob, params: Params, sound: jax.Array, indices: np.ndarray) -> None:
    inputs = (params, job.prompts.captions.text)
    finite.check_finite(sound, indices, stage=job.painter.stage, inputs=inputs)


def _paint(
    job: StageJob, params: Params, canvas: SamplerInputs, rows: np.ndarray, watch: Watch | None
) -> jax.Array:
    """One batch's pictures; who watches sees them every few steps."""
    request, sampler = job.request, job.painter.stage.sampler
    program = StageProgram.of(job.painter, job.sides)
    dials = SamplerParams.of(sampler, repeats=request.repeats)
    steps = sampler.steps
    first = steps - round(request.strength * steps)
    every = watch.every if watch else steps
    state = None
    for begin in range(first, max(steps, first + 1), every):
        end = min(begin + every, steps)
        span = dials._replace(first=np.int32(begin), last=np.int32(end))
        state = stage_program.sample_stage(params, canvas, state, span, program=program)
        if watch:
            images = stage_program.unscale_x0(state)
            _check(job, params, finite.is_finite_each(images), job.prompts.indices[rows])
            watch.show(end, steps, mesh.to_host(images))
    assert state is not None
    return stage_program.unscale_x0(state)
