"""One stage over all prompts, batch by batch; the devices never wait for the host.

Stages do not overlap: a batch fills all devices, and nothing measurable is lost between stages.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    devices, batch_size = layout_batch(trained.stage, size, batch_size)
    batches = _Batches(
        trained=trained,
        params=trained.device_params(mesh.replicated_sharding(devices)),
        inputs=inputs,
        spans=_spans(sampler_params, callbacks.preview_every if callbacks.has_previews else 0),
        devices=devices,
        size=size,
        callbacks=callbacks,
    )
    started: deque[_Started] = deque()
    sampled: list[np.ndarray] = []
    for start in range(0, len(inputs.indices), batch_size):
        started.append(batches.start(start, batch_size))
        if len(started) > AHEAD:
            sampled.append(batches.finish(started.popleft()))
    while started:
        sampled.append(batches.finish(started.popleft()))
    return np.concatenate(sampled)


class _Started(NamedTuple):
    """A batch that is being computed, or one that an earlier run has kept."""

    start: int  # its first row
    images: jax.Array | np.ndarray  # in numpy where they were kept
    sound: jax.Array | None


@dataclass(frozen=True, kw_only=True)
class _Batches:
    """One stage's batches, each of which is started, and then fetched."""

    trained: TrainedStage
    params: Params
    inputs: SamplerInputs  # of all images, in numpy
    spans: Sequence[SamplerParams]
    devices: jax.sharding.Mesh
    size: tuple[int, int]
    callbacks: SamplingCallbacks

    def start(self, start: int, batch_size: int) -> _Started:
        """The batch of rows from `start` on."""
        indices, count = self.inputs.indices, len(self.inputs.indices)
        kept = self.callbacks.load_batch(
            self.trained.stage.name,
            int(indices[start]),
            shape=(min(batch_size, count - start), *self.size, kept_batches.COLOURS),
        )
        if kept is not None:
            return _Started(start, kept, None)
        # Rows past the end repeat the last prompt and are thrown away.
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        batch = self.inputs.rows(rows)  # outside the mesh: each process has all of it
        with mesh.activate(self.devices):
            placed = mesh.to_global(batch, mesh.batch_sharding(self.devices))
            images = self._sample(placed, indices[np.unique(rows)])
            return _Started(start, images, nonfinite_images.is_finite_each(images))

    def finish(self, started: _Started) -> np.ndarray:
        """The images of a batch, once they are there, without those that fill it up."""
        start, images, sound = started
        indices = self.inputs.indices
        if sound is not None:
            self._check(sound, indices[start:])
        fetched = (
            images
            if isinstance(images, np.ndarray)
            else mesh.to_host(images)[: len(indices) - start]
        )
        self.callbacks.finish_batch(self.trained.stage.name, int(indices[start]), fetched)
        return fetched

    def _sample(self, inputs: SamplerInputs, indices: np.ndarray) -> jax.Array:
        """One batch's images; after each span of steps they are shown as they are then."""
        state, program = None, self.trained.program()
        for span in self.spans:
            state = stage_program.sample_stage(
                self.params, inputs, state, span, program=program, size=self.size
            )
            if self.callbacks.has_previews:
                self._show(int(span.last), stage_program.clip_x0(state), indices)
        assert state is not None
        return stage_program.clip_x0(state)

    def _show(self, step: int, images: jax.Array, indices: np.ndarray) -> None:
        """Hand a batch's unfinished images to `on_preview`."""
        self._check(nonfinite_images.is_finite_each(images), indices)
        preview = Preview(
            stage=self.trained.stage.name,
            first_index=int(indices[0]),
            step=step,
            steps=self.trained.stage.sampler.steps,
            images=mesh.to_host(images)[: len(indices)],
        )
        self.callbacks.send_preview(preview)

    def _check(self, sound: jax.Array, indices: np.ndarray) -> None:
        weights_and_text = (self.params, self.inputs.captions.text)
        nonfinite_images.check_finite(
            sound, indices, stage=self.trained.stage, inputs=weights_and_text
        )


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


def _spans(sampler_params: SamplerParams, every: int) -> list[SamplerParams]:
    """The steps in parts of `every`, or as one; no steps at all are one part, too."""
    first, last = int(sampler_params.first), int(sampler_params.last)
    every = every or max(1, last - first)
    return [
        sampler_params._replace(first=np.int32(start), last=np.int32(min(start + every, last)))
        for start in range(first, max(last, first + 1), every)
    ]
