"""One stage over all prompts, batch by batch; the devices never wait for the host.

Stages do not overlap: a batch fills all devices, and nothing measurable is lost between stages.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from imagen_jax import config
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.sample import kept_batches, memory, nonfinite_images, stage_program
from imagen_jax.sample.progress import Preview, SamplingCallbacks
from imagen_jax.sample.sampler_inputs import SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.types import Params

AHEAD = 1  # batches that are started while one is fetched


def sample_batches(
    trained: TrainedStage,
    inputs: SamplerInputs,
    sampler_params: SamplerParams,
    *,
    size: tuple[int, int],
    batch_size: int,
    callbacks: SamplingCallbacks,
) -> np.ndarray:
    """All images, (p, h, w, 3) float32 in [-1, 1]; `inputs` are those of all, in numpy.

    Errors: nonfinite_images.NotFinite at the first batch with one that is not; it is not kept.
    """
    indices, name = inputs.indices, trained.stage.name
    count = len(indices)
    devices, batch_size = layout_batch(trained.stage, size, batch_size)
    params = trained.device_params(mesh.replicated_sharding(devices))
    spans = _spans(sampler_params, callbacks.preview_every if callbacks.has_previews else 0)
    started: deque[tuple[int, jax.Array | np.ndarray, jax.Array | None]] = deque()
    sampled: list[np.ndarray] = []

    def finish() -> None:
        start, images, sound = started.popleft()
        if sound is not None:
            _check(trained, sound, indices[start:], (params, inputs.captions.text))
        sampled.append(
            images if isinstance(images, np.ndarray) else mesh.to_host(images)[: count - start]
        )
        callbacks.finish_batch(name, int(indices[start]), sampled[-1])

    for start in range(0, count, batch_size):
        images: jax.Array | np.ndarray | None = callbacks.load_batch(
            name,
            int(indices[start]),
            shape=(min(batch_size, count - start), *size, kept_batches.COLOURS),
        )
        sound = None
        if images is None:
            # Rows past the end repeat the last prompt and are thrown away.
            rows = np.minimum(np.arange(start, start + batch_size), count - 1)
            show = _show(
                trained, indices[np.unique(rows)], (params, inputs.captions.text), callbacks
            )
            batch = inputs.rows(rows)  # outside the mesh: each process has all of it
            with mesh.activate(devices):
                placed = mesh.to_global(batch, mesh.batch_sharding(devices))
                images = _sample(trained, params, placed, spans, size=size, show=show)
                sound = nonfinite_images.is_finite_each(images)
        started.append((start, images, sound))
        if len(started) > AHEAD:
            finish()
    while started:
        finish()
    return np.concatenate(sampled)


def check_memory(
    trained: TrainedStage, prompts: SamplerInputs, size: tuple[int, int], *, batch_size: int
) -> None:
    """Errors: ValueError for batches that the memory of the devices can't hold: `memory.check`."""
    devices, images = layout_batch(trained.stage, size, batch_size)
    memory.check(trained, prompts.captions, size, images=images, devices=devices)


def layout_batch(
    stage: config.Stage, size: tuple[int, int], batch_size: int
) -> tuple[jax.sharding.Mesh, int]:
    """The devices, laid out for a batch, and the images that fill it."""
    passes = 2 if stage.is_guided else 1  # rows of the network's batch
    workload = auto_layout.Workload(
        images=passes * batch_size, rows=size[0] // stage.model.multiple()
    )
    devices = mesh.build(auto_layout.choose_axes(workload=workload))
    return devices, auto_layout.padded_batch_size(
        batch_size, devices, passes=passes, side=min(size)
    )


def _check(
    trained: TrainedStage, sound: jax.Array, indices: np.ndarray, inputs: tuple[Params, Any]
) -> None:
    nonfinite_images.check_finite(sound, indices, stage=trained.stage, inputs=inputs)


def _show(
    trained: TrainedStage,
    indices: np.ndarray,
    inputs: tuple[Params, Any],
    callbacks: SamplingCallbacks,
) -> Callable[[int, jax.Array], None] | None:
    """A function that hands a batch's unfinished images to `on_preview`; None without previews."""
    if not callbacks.has_previews:
        return None

    def show(step: int, images: jax.Array) -> None:
        _check(trained, nonfinite_images.is_finite_each(images), indices, inputs)
        preview = Preview(
            stage=trained.stage.name,
            first_index=int(indices[0]),
            step=step,
            steps=trained.stage.sampler.steps,
            images=mesh.to_host(images)[: len(indices)],
        )
        callbacks.send_preview(preview)

    return show


def _spans(sampler_params: SamplerParams, every: int) -> list[SamplerParams]:
    """The steps in parts of `every`, or as one; no steps at all are one part, too."""
    first, last = int(sampler_params.first), int(sampler_params.last)
    every = every or max(1, last - first)
    return [
        sampler_params._replace(first=np.int32(start), last=np.int32(min(start + every, last)))
        for start in range(first, max(last, first + 1), every)
    ]


def _sample(
    trained: TrainedStage,
    params: Params,
    inputs: SamplerInputs,
    spans: Sequence[SamplerParams],
    *,
    size: tuple[int, int],
    show: Callable[[int, jax.Array], None] | None,
) -> jax.Array:
    """One batch's images; `show` gets the steps made and the images so far, after each span."""
    state, program = None, trained.program()
    for span in spans:
        state = stage_program.sample_stage(params, inputs, state, span, program=program, size=size)
        if show is not None:
            show(int(span.last), stage_program.clip_x0(state))
    assert state is not None
    return stage_program.clip_x0(state)
