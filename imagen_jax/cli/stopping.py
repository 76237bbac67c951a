"""SIGTERM, and Google Cloud's notice, while images are sampled: end between two batches."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagen_jax.parallel import distributed
from imagen_jax.runtime import exit_codes

UNFINISHED = "unfinished"  # subfolder for batches that are done, until all are
PATIENCE = 20.0  # seconds from SIGTERM until a process ends that comes to no end of a batch


@contextmanager
def watch_between_batches(unfinished: Path) -> Iterator[Callable[[], None]]:
    """A function to call after each batch.

    A process that comes to no end of a batch within `PATIENCE`, since a network is built, compiled
    or slow, is ended with the same exit code; the batch under way is lost.
    Errors: Preempted, of `exit_codes`, once this process is asked to stop; the batches are in
    `unfinished`.
    """
    from imagen_jax.runtime import preemption

    said = (
        f"asked to stop; the images so far are kept in {unfinished}: give the same command again, "
        "which resumes"
    )
    with preemption.watch_for_preemption(distributed.metadata_server()) as watch, _ending(said):

        def check() -> None:
            if watch.reached(0):
                raise exit_codes.Preempted(said)

        yield check


@contextmanager
def _ending(said: str) -> Iterator[None]:
    """End this process `PATIENCE` after SIGTERM, unless the block ends before.

    The number of a signal arrives in a pipe even while the main thread is in a library, where its
    handler does not run. Several processes, whose signals are those of jax's service, are left
    alone.
    """
    import jax

    if jax.process_count() > 1:
        yield
        return
    numbers, arrivals = os.pipe()
    os.set_blocking(arrivals, False)
    ended = threading.Event()
    before = signal.set_wakeup_fd(arrivals, warn_on_full_buffer=False)
    thread = threading.Thread(target=_end_late, args=(numbers, ended, said), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(arrivals)  # which ends the thread
        thread.join()
        os.close(numbers)


def _end_late(numbers: int, ended: threading.Event, said: str) -> None:
    while arrived := os.read(numbers, 1):
        if arrived[0] == signal.SIGTERM and not ended.wait(PATIENCE):
            os.write(2, f"\nimagen: {said}\n".encode(errors="backslashreplace"))
            os._exit(exit_codes.PREEMPTED)
