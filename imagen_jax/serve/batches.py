"""Batches of waiting images on the devices: begun, made in spans of steps, and handed on."""

import dataclasses
import math
import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from imagen_jax import config
from imagen_jax.image import to_uint8
from imagen_jax.imagen import Imagen
from imagen_jax.sample import cascade, stage
from imagen_jax.sample.request import Request, sizes_of_stages
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_batch import StageBatch
from imagen_jax.serve.image_request import Failed, Finished, ImageRequest, Partial
from imagen_jax.serve.metrics import Metrics
from imagen_jax.serve.prompt_encodings import PromptEncodings
from imagen_jax.serve.spans import Spans
from imagen_jax.serve.waiting_images import Job


class NotFiniteImage(ArithmeticError):
    """An image has numbers that are not finite."""


@dataclasses.dataclass(eq=False)
class Running:
    """A batch on the devices."""

    jobs: list[Job]
    batch: StageBatch
    began: float
    steps_before: int  # of the stages before, which are made
    steps_all: int
    span: int = 0  # steps that the devices were given last
    span_began: float = 0.0

    @property
    def given(self) -> int:
        """The steps that the devices were given, with those of the stages before."""
        return self.steps_before + self.batch.made - int(self.batch.sampler_params.first)

    @property
    def share(self) -> float:
        """The share of all steps that the devices were given."""
        return self.given / max(1, self.steps_all)

    @property
    def kind(self) -> tuple[int, tuple[int, int]]:
        """What decides on the time of a step: the stage, and the size of its images."""
        return self.jobs[0].stage, self.batch.size

    def steps_until_partial(self, job: Job) -> int | None:
        """The steps until the next partial image is due; None if none will be.

        Of p partial images the k-th is due after k of p + 1 parts of all steps.
        """
        wanted = job.ticket.request.partials
        if job.ticket.is_cancelled or job.partials >= wanted:
            return None
        return math.ceil(Fraction((job.partials + 1) * self.steps_all, wanted + 1)) - self.given


class Batches:
    """Begins, advances and finishes batches of a cascade; used by the thread of the devices alone.

    Images are sampled `size` at once: a batch with fewer is filled up, since another size is
    another program, whose last bits differ. `kind` is a batch's: `SharedBatch` on several hosts.
    """

    def __init__(
        self, imagen: Imagen, size: int, metrics: Metrics, kind: type[StageBatch] = StageBatch
    ) -> None:
        self.size = config.check_value(size, config.BatchSize, "batch_size")
        self._stages, self._metrics, self._kind = imagen.stages, metrics, kind
        self._configs = [trained.stage for trained in imagen.stages]
        self._encodings = PromptEncodings(imagen)
        self._spans = Spans()
        self._idle_since = 0.0  # the devices, but for what they were given later

    def check_memory(self, size: tuple[int, int]) -> None:
        """Refuse a size that the devices' memory can't hold. Errors: ValueError."""
        encoded, _ = self._encodings.get("", "")
        for trained, one in zip(self._stages, self.sizes(size), strict=True):
            stage.check_memory(trained, encoded, one, batch_size=self.size)

    def begin(self, jobs: list[Job]) -> Running:
        """Begin a batch of images of one key, and give its first steps to the devices.

        Errors: those of encoding and of reading weights.
        """
        number, request, now = jobs[0].stage, jobs[0].ticket.request, time.monotonic()
        for job in jobs:
            if number == 0:
                self._metrics.queue_seconds.observe(now - job.arrived)
            if job.encoded is None:
                self._encode(job)
        params = [
            request.sampler_params(one, is_first=i == 0) for i, one in enumerate(self._configs)
        ]
        steps = [int(one.last) - int(one.first) for one in params]
        trained, size = self._stages[number], self.sizes(request.size)[number]
        batch = self._kind.start(
            trained,
            _inputs(trained.stage, jobs, size),
            params[number],
            size=size,
            batch_size=self.size,
        )
        self._metrics.rows.labels("image").inc(len(jobs))
        self._metrics.rows.labels("filling").inc(batch.rows - len(jobs))
        running = Running(jobs, batch, now, sum(steps[:number]), sum(steps))
        self._advance(running)
        return running

    def complete(self, running: Running) -> Running | None:
        """Make all steps of a batch; the devices may still compute the last one.

        Between two spans partial images are sent. None: nobody waits for the images any more.
        """
        batch = running.batch
        while not batch.is_done:
            batch.wait()
            self._note_span(running)
            if all(job.ticket.is_cancelled for job in running.jobs):
                self._metrics.cancelled.inc(len(running.jobs))
                return None
            self._send_partials(running)
            self._advance(running)
        return running

    def finish(self, running: Running) -> list[Job]:
        """Fetch a batch's images and answer their requests.

        Returns the images that go on to the next stage, which are still wanted.
        """
        images, finite = running.batch.images()
        self._note_span(running)
        name, is_last = (
            running.batch.trained.stage.name,
            running.jobs[0].stage + 1 == len(self._stages),
        )
        self._metrics.stage_seconds.labels(name).observe(time.monotonic() - running.began)
        pixels = to_pixels(images) if is_last else images
        wanted = []
        for job, image, is_finite in zip(running.jobs, pixels, finite, strict=True):
            if job.ticket.is_cancelled:
                self._metrics.cancelled.inc()
            elif not is_finite:
                job.ticket.cancel()
                job.ticket.emit(Failed(_not_finite(name, job.ticket.request)))
            elif is_last:
                self._metrics.images.inc()
                job.ticket.emit(Finished(job.index, image))
            else:
                job.low_res, job.stage = image, job.stage + 1
                wanted.append(job)
        return wanted

    def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """The sizes of each stage's images, for those of the last one's."""
        first = Request(size=size).first_size(self._configs)
        return sizes_of_stages(self._configs, first)

    def _encode(self, job: Job) -> None:
        request = job.ticket.request
        job.encoded, said = self._encodings.get(request.prompt, request.negative_prompt)
        job.ticket.warnings = said

    def _advance(self, running: Running) -> None:
        """Give the next span to the devices; it ends where a partial image is due."""
        found = map(running.steps_until_partial, running.jobs)
        until = [max(1, left) for left in found if left is not None]
        steps = min([self._spans.choose_steps(running.kind), *until])
        before, running.span_began = running.batch.made, time.monotonic()
        running.batch.advance(steps)
        running.span = running.batch.made - before

    def _note_span(self, running: Running) -> None:
        """Take note that the devices have made what they were given last."""
        now, began = time.monotonic(), max(running.span_began, self._idle_since)
        self._spans.note(running.kind, steps=running.span, seconds=now - began)
        self._idle_since = now

    def _send_partials(self, running: Running) -> None:
        """Send those that are due."""
        due = [
            (row, job)
            for row, job in enumerate(running.jobs)
            if (left := running.steps_until_partial(job)) is not None and left <= 0
        ]
        if not due:
            return
        images, finite = running.batch.images()
        pixels = to_pixels(images)
        for row, job in due:
            if finite[row]:
                job.ticket.emit(Partial(job.index, job.partials, running.share, pixels[row]))
            job.partials += 1


def _inputs(stage: config.Stage, jobs: Sequence[Job], size: tuple[int, int]) -> SamplerInputs:
    """What a stage starts from for each image."""
    rows = [job.encoded for job in jobs if job.encoded is not None]
    requests = [job.ticket.request for job in jobs]
    prompts = SamplerInputs(
        captions=_joined([row.captions for row in rows]),
        negatives=_joined([row.negatives for row in rows if row.negatives is not None]),
        indices=np.array([job.index for job in jobs], np.int32),
        seeds=np.array([request.seed for request in requests], np.uint32),
    )
    images = [r.init_image for r in requests if r.init_image is not None]
    masks = [r.mask for r in requests if r.mask is not None]
    given = Request(
        init_image=np.stack(images) if images else None, mask=np.stack(masks) if masks else None
    )
    low_res = [job.low_res for job in jobs if job.low_res is not None]
    return cascade.stage_inputs(
        stage, prompts, given, np.stack(low_res) if low_res else None, size=size
    )


def _joined(texts: Sequence[EncodedText]) -> EncodedText:
    return EncodedText(*(np.concatenate(parts) for parts in zip(*texts, strict=True)))


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] as uint8: image by image one program, whatever their number."""
    return np.stack([np.asarray(to_uint8(image)) for image in images])


def _not_finite(stage: str, request: ImageRequest) -> NotFiniteImage:
    given = request.guidance_weight
    remedy = "" if given is None else f"; guidance of {given:g} may be too much: lower it"
    return NotFiniteImage(f"{stage} made an image that is not finite{remedy}")
