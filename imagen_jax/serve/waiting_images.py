"""Images that wait for the devices: fair between clients, bounded, the furthest stage first."""

import dataclasses
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from imagen_jax.sample.sampler_inputs import SamplerInputs
from imagen_jax.serve.image_request import Ticket


@dataclasses.dataclass(eq=False)
class Job:
    """One image on its way through the stages."""

    ticket: Ticket
    index: int
    arrived: float  # on `time.monotonic`'s clock
    stage: int = 0  # the next one
    encoded: SamplerInputs | None = None  # of the prompt, one row
    low_res: np.ndarray | None = None  # (h, w, 3) in [-1, 1], of the stage before
    partials: int = 0  # sent

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for images that one batch may have."""
        return (self.stage, *self.ticket.request.options)


class QueueFull(Exception):
    """More images wait than may; `waiting` of them."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} images wait already")
        self.waiting = waiting


class WaitingImages:
    """The queue. Clients take turns image by image; images that have begun go before others.

    So an image that has begun is finished without waiting for new ones, and few are in memory.
    Methods may be called from any thread.
    """

    def __init__(self, *, stages: int, most: int) -> None:
        self._changed = threading.Condition()
        self.most = most
        self._new: OrderedDict[str, deque[Job]] = OrderedDict()  # by client, in turn
        self._begun: list[deque[Job]] = [deque() for _ in range(stages)]
        self._is_closed = False

    def add(self, ticket: Ticket) -> None:
        """Add every image of a request.

        Errors: QueueFull where they would be more than `most`; then none of them waits.
        """
        now = time.monotonic()
        jobs = [Job(ticket, index, now) for index in range(ticket.request.count)]
        with self._changed:
            waiting = self._count_new()
            if waiting + len(jobs) > self.most:
                raise QueueFull(waiting)
            self._new.setdefault(ticket.client, deque()).extend(jobs)
            self._changed.notify()

    def add_begun(self, jobs: list[Job]) -> None:
        """Add images to the stage that each of them names."""
        with self._changed:
            for job in jobs:
                self._begun[job.stage].append(job)

    def discard(self, ticket: Ticket) -> None:
        """Take the images of a request that nobody waits for out of the queue."""
        with self._changed:
            for client in list(self._new):
                self._keep(self._new[client], ticket)
                if not self._new[client]:
                    del self._new[client]
            for jobs in self._begun:
                self._keep(jobs, ticket)
            self._changed.notify()

    def take(self, most: int, *, wait: bool, seconds: float | None = None) -> list[Job]:
        """Take at most `most` images of one key; none if there is none, or the queue is closed.

        With `wait` it returns when there is one, or after so many seconds.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(
                    lambda: self._is_closed or bool(self._count_all()), timeout=seconds
                )
            for jobs in reversed(self._begun):
                if jobs:
                    return self._take_begun(jobs, most)
            return self._take_new(most)

    def close(self) -> None:
        """Wake `take`, which waits no more: it returns what is left, then nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return self._is_closed

    def drop_all(self) -> list[Ticket]:
        """Empty the queue; returns the requests whose images were in it."""
        with self._changed:
            found = {id(job.ticket): job.ticket for job in self._all()}
            self._new.clear()
            for jobs in self._begun:
                jobs.clear()
            return list(found.values())

    def __len__(self) -> int:
        """The images that wait to be begun."""
        with self._changed:
            return self._count_new()

    def _take_begun(self, jobs: deque[Job], most: int) -> list[Job]:
        key = jobs[0].key
        taken = [job for job in jobs if job.key == key][:most]
        left = set(map(id, taken))
        kept = [job for job in jobs if id(job) not in left]
        jobs.clear()
        jobs.extend(kept)
        return taken

    def _take_new(self, most: int) -> list[Job]:
        """Images of the client whose turn it is, and of others in turn that go with them."""
        taken: list[Job] = []
        passed = 0  # clients in a row with nothing that fits
        while self._new and len(taken) < most and passed < len(self._new):
            client, jobs = next(iter(self._new.items()))
            self._new.move_to_end(client)
            chosen = next((j for j in jobs if not taken or j.key == taken[0].key), None)
            passed = passed + 1 if chosen is None else 0
            if chosen is not None:
                jobs.remove(chosen)
                taken.append(chosen)
                if not jobs:
                    del self._new[client]
        return taken

    def _all(self) -> Iterator[Job]:
        for jobs in (*self._new.values(), *self._begun):
            yield from jobs

    def _count_new(self) -> int:
        return sum(map(len, self._new.values()))

    def _count_all(self) -> int:
        return self._count_new() + sum(map(len, self._begun))

    @staticmethod
    def _keep(jobs: deque[Job], ticket: Ticket) -> None:
        """Remove those of a request."""
        kept = [job for job in jobs if job.ticket is not ticket]
        jobs.clear()
        jobs.extend(kept)
