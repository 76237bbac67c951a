"""The engine: one thread that owns the devices and samples what waits, batch by batch.

An image goes through the stages one by one. A batch has images of any requests that want the same
programs and numbers; an image's seed is its own, so that it does not depend on the others.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

from imagen_jax.imagen import Imagen
from imagen_jax.sample import cascade
from imagen_jax.sample.request import Request
from imagen_jax.sample.stage_batch import StageBatch
from imagen_jax.serve import hosts, warming
from imagen_jax.serve.batches import Batches, Running
from imagen_jax.serve.image_request import (
    Event,
    Failed,
    Finished,
    ImageRequest,
    Ticket,
    takes_guidance,
)
from imagen_jax.serve.metrics import Metrics
from imagen_jax.serve.waiting_images import Job, WaitingImages

LOG = logging.getLogger("imagen_jax.serve")
OLDER = 0.8  # weight of the earlier estimate of an image's seconds
CPU_BATCH, ACCELERATOR_BATCH = 1, 8  # images at once; on a CPU more are hardly faster

Found = TypeVar("Found")


class Draining(Exception):
    """The server ends, and takes no new requests."""

    def __init__(self) -> None:
        super().__init__("the server is being shut down: try again, perhaps at another one")


def default_batch_size() -> int:
    """The images that are sampled at once where nobody says."""
    on_host = jax.devices()[0].platform == "cpu"
    return CPU_BATCH if on_host else ACCELERATOR_BATCH * jax.device_count()


class Engine:
    """Takes requests from any thread, and answers them by events on its own.

    A request that is taken gets, in the end, every image as `Finished`, or one `Failed`, unless
    it is cancelled. Where the devices are those of several hosts, it is process 0's; the others
    call `hosts.follow`. When one of them is lost the thread ends, `lost` says why, and SIGTERM is
    raised, which ends the server.
    """

    def __init__(
        self, imagen: Imagen, *, batch_size: int, max_queue: int, metrics: Metrics
    ) -> None:
        self.imagen, self.metrics = imagen, metrics
        self._configs = [trained.stage for trained in imagen.stages]
        self._is_shared = hosts.are_several()
        kind = hosts.SharedBatch if self._is_shared else StageBatch
        self._batches = Batches(imagen, batch_size, metrics, kind)
        self._waiting = WaitingImages(stages=len(imagen.stages), most=max_queue)
        self._open: dict[Ticket, int] = {}  # the images that each request still waits for
        self._lock = threading.Lock()  # of `_open` and `_is_draining`
        self._is_draining = False
        self._busy = threading.Event()
        self._seconds = 1.0  # of one image, as far as is known
        self.lost: hosts.LostHost | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        metrics.waiting.set_function(lambda: len(self._waiting))
        metrics.active.set_function(lambda: len(self._open))

    def check(self, request: ImageRequest) -> None:
        """Refuse a request that this engine can never meet. Errors: ValueError."""
        if request.count > self._waiting.most:
            raise ValueError(
                f"n: {request.count} images are more than may wait here, {self._waiting.most}: "
                "ask for fewer at a time"
            )
        given = Request(negative_prompt=request.negative_prompt, size=request.size)
        cascade.check_request(self._configs, given, 1)
        weight = request.guidance_weight
        if weight is not None and not any(map(takes_guidance, self._configs)):
            raise ValueError(
                f"guidance {weight:g} would change nothing: no stage of this cascade has guidance"
            )
        for number, one in enumerate(self._configs):
            if number == 0 and one.sampler.timesteps and request.steps is not None:
                raise ValueError(f"{one.name} has listed time steps: their number can't be chosen")
            request.sampler(one, is_first=number == 0)

    def warm(self, sizes: Sequence[tuple[int, int]], report: Callable[[str, float], None]) -> None:
        """Compile all that images of these sizes need, as `warming.compile_programs`.

        To be called before `start`.
        """
        warming.compile_programs(self.imagen, sizes, batch_size=self._batches.size, report=report)

    def check_memory(self, size: tuple[int, int]) -> None:
        """Refuse images of a size that the devices can't hold. Errors: ValueError."""
        self._batches.check_memory(size)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(
        self, request: ImageRequest, *, client: str, emit: Callable[[Event], None]
    ) -> Ticket:
        """Take a request; `emit` gets its events.

        Errors: waiting_images.QueueFull; Draining; ValueError as `check`.
        """
        self.check(request)

        def count_and_emit(event: Event) -> None:
            self._note(ticket, event)
            emit(event)

        ticket = Ticket(request, client, count_and_emit)
        with self._lock:
            if self._is_draining:
                raise Draining
            self._waiting.add(ticket)
            self._open[ticket] = request.count
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Give a request up: its images leave the queue now, and the devices within a step."""
        ticket.cancel()
        self._waiting.discard(ticket)
        with self._lock:
            self._open.pop(ticket, None)

    def seconds_to_wait(self) -> int:
        """Estimate after how many seconds half of the queue is done."""
        return max(1, round(len(self._waiting) * self._seconds / 2))

    def drain(self) -> None:
        """Take no new requests; those that wait are finished."""
        with self._lock:
            self._is_draining = True

    @property
    def is_ready(self) -> bool:
        """True while requests are taken and the thread lives."""
        return self._thread.is_alive() and not self._is_draining

    @property
    def is_idle(self) -> bool:
        """True while nothing is computed."""
        return not self._busy.is_set()

    def stop(self) -> None:
        """End the thread, within a step; requests that are not finished fail as `Draining`."""
        self._fail_all(Draining())
        if self._thread.ident is not None:
            self._thread.join()

    def _fail_all(self, error: Exception) -> None:
        self.drain()
        with self._lock:
            left = list(self._open)
        for ticket in left:
            self._fail(ticket, error)
        self._waiting.close()

    def _run(self) -> None:
        try:
            self._sample_all()
            if self._is_shared:
                hosts.end()
        except hosts.LostHost as error:
            LOG.exception("a host is lost")
            self.lost = error
            self._fail_all(error)
            signal.raise_signal(signal.SIGTERM)

    def _sample_all(self) -> None:
        """Sample batch after batch; the next one is begun before the images of one are fetched."""
        finishing: Running | None = None
        heartbeat = hosts.HEARTBEAT if self._is_shared else None
        while True:
            jobs = self._waiting.take(self._batches.size, wait=finishing is None, seconds=heartbeat)
            if not jobs and finishing is None:
                if self._waiting.is_closed:
                    return
                hosts.send_heartbeat()
                continue
            self._busy.set()
            begun = None
            if jobs:
                begun = self._guard(jobs, self._batches.begin, jobs)
            if finishing is not None:
                left = self._guard(finishing.jobs, self._batches.finish, finishing)
                self._waiting.add_begun(left or [])
                self._learn(finishing)
            finishing = None
            if begun is not None:
                finishing = self._guard(begun.jobs, self._batches.complete, begun)
            if finishing is None:
                self._busy.clear()
            del jobs, begun  # they would be kept while nothing comes

    def _guard(self, jobs: list[Job], work: Callable[[Any], Found], given: Any) -> Found | None:
        """Do something for a batch; what goes wrong fails its requests, and not the server."""
        try:
            return work(given)
        except hosts.LostHost:
            raise
        except Exception as error:
            LOG.exception("a batch failed")
            for job in jobs:
                self._fail(job.ticket, error)
            return None

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if not ticket.is_cancelled:
            self.cancel(ticket)
            ticket.emit(Failed(error))

    def _note(self, ticket: Ticket, event: Event) -> None:
        """Count the images that a request still waits for; one that failed waits for none."""
        if isinstance(event, Failed):
            self._waiting.discard(ticket)
        with self._lock:
            left = self._open.get(ticket, 0)
            if isinstance(event, Finished) and left > 1:
                self._open[ticket] = left - 1
            elif isinstance(event, Finished | Failed):
                self._open.pop(ticket, None)

    def _learn(self, done: Running) -> None:
        """Estimate an image's seconds: a batch's, by its share of all steps."""
        share = max(done.share - done.steps_before / max(1, done.steps_all), 1e-3)
        seconds = (time.monotonic() - done.began) / (share * len(done.jobs))
        self._seconds = OLDER * self._seconds + (1 - OLDER) * seconds
