"""Requests to an engine, and their events, gathered until the last one."""

import queue
from collections.abc import Sequence

import numpy as np

from imagen_jax.serve.engine import Engine
from imagen_jax.serve.image_request import Event, Failed, Finished, ImageRequest, Partial, Ticket

PATIENCE = 300  # seconds until a test gives up, on any machine


class Waiter:
    """A client of the engine."""

    def __init__(self, engine: Engine, request: ImageRequest, client: str = "a") -> None:
        self._events: queue.Queue[Event] = queue.Queue()
        self.partials: list[Partial] = []
        self._count = request.count
        self.ticket: Ticket = engine.submit(request, client=client, emit=self._events.put)

    def next(self) -> Event:
        """The next event."""
        return self._events.get(timeout=PATIENCE)

    def images(self) -> np.ndarray:
        """All images, in order. Errors: the one that the request failed with."""
        found: dict[int, np.ndarray] = {}
        while len(found) < self._count:
            match self.next():
                case Failed(error):
                    raise error
                case Partial() as partial:
                    self.partials.append(partial)
                case Finished(index, pixels):
                    assert index not in found
                    found[index] = pixels
        return np.stack([found[index] for index in sorted(found)])


def ask(seed: int, prompt: str = "a large red circle", **options: object) -> ImageRequest:
    """A request of the small cascade."""
    given = {"size": (16, 16), **options}
    return ImageRequest(prompt=prompt, seed=seed, **given)  # type: ignore[arg-type]


def sample(engine: Engine, requests: Sequence[ImageRequest]) -> list[np.ndarray]:
    """Images of requests that are made at once, each by a client of its own."""
    waiters = [Waiter(engine, one, client=str(i)) for i, one in enumerate(requests)]
    return [waiter.images() for waiter in waiters]
