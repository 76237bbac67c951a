"""Tensors where they lie in a checkpoint, and what of the network each holds."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition
from typing import Any

import numpy as np

PIECE = 2**22  # elements that are digested at a time
READERS = 8  # tensors read at once, as far as memory allows


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of a checkpoint, not read yet."""

    name: str
    shape: tuple[int, ...]
    where: str
    read: Callable[[], np.ndarray]  # all of it, of a float dtype
    bytes: int  # of memory that reading takes, the array itself included


@dataclass(frozen=True)
class Parameter:
    """A parameter of the network: a view of a stored tensor."""

    name: str  # T5X's: encoder.layers_0.attention.query.kernel
    shape: tuple[int, ...]
    view: Callable[[np.ndarray], np.ndarray]


Layout = Sequence[tuple[LazyTensor, Sequence[Parameter]]]
Place = Callable[[str, np.ndarray], Any]  # of a parameter's name and a view that is read but once


def read_parameters(layout: Layout, place: Place, *, readers: int = READERS) -> dict[str, Any]:
    """Every parameter of a layout as `place` returns it, which has to copy.

    Tensors are read side by side, by so many threads, as long as all that is read and not yet
    placed takes no more memory than the largest of them would alone.
    """
    budget = _Budget(max((stored.bytes for stored, _ in layout), default=0))

    def take(stored: LazyTensor, parameters: Sequence[Parameter]) -> list[tuple[str, Any]]:
        with budget.lend(stored.bytes):
            array = stored.read()
            return [(p.name, place(p.name, p.view(array))) for p in parameters]

    with ThreadPoolExecutor(readers) as pool:
        jobs = [pool.submit(take, *piece) for piece in layout]
        try:
            return dict(pair for job in jobs for pair in job.result())
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest need not be read


def parameter_shapes(layout: Layout) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of all parameters by name."""
    return {p.name: p.shape for _, parameters in layout for p in parameters}


def digest_values(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's shape and float32 values, whatever its order and dtype."""
    digest = hashlib.sha256(repr(array.shape).encode())
    rows = max(1, PIECE * len(array) // max(1, array.size))
    for start in range(0, len(array), rows):
        digest.update(np.array(array[start : start + rows], np.float32, order="C").data)
    return digest.hexdigest()


class _Budget:
    """A number of bytes, lent to threads."""

    def __init__(self, size: int) -> None:
        self._size, self._lent = size, 0
        self._changed = Condition()

    @contextmanager
    def lend(self, amount: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._lent + amount <= self._size)
            self._lent += amount
        try:
            yield
        finally:
            with self._changed:
                self._lent -= amount
                self._changed.notify_all()
