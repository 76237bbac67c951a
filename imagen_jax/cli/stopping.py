"""SIGTERM, and Google Cloud's notice, while images are sampled: end between two batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagen_jax.io import atomic
from imagen_jax.parallel import distributed
from imagen_jax.runtime import exit_codes, late_signals

UNFINISHED = "unfinished"  # subfolder for batches that are done, until all are
PATIENCE = 20.0  # seconds from SIGTERM until a process ends that comes to no end of a batch


@contextmanager
def watch_between_batches(unfinished: Path) -> Iterator[Callable[[], None]]:
    """A function to call after each batch.

    A process that comes to no end of a batch within `PATIENCE`, since a network is built, compiled
    or slow, is ended with the same exit code; the batch under way is lost.
    Errors: Preempted, of `exit_codes`, once this process is asked to stop; the batches are in
    `unfinished`. ValueError where that is a link.
    """
    atomic.check_no_link(unfinished)
    import jax

    from imagen_jax.runtime import preemption

    said = (
        f"asked to stop; the images so far are kept in {unfinished}: give the same command again, "
        "which resumes"
    )
    # Signals of several processes are those of jax's service.
    patience = PATIENCE if jax.process_count() == 1 else None
    with (
        preemption.watch_for_preemption(distributed.metadata_server()) as watch,
        late_signals.end_late(said, patience=patience),
    ):

        def check() -> None:
            if watch.reached(0):
                raise exit_codes.Preempted(said)

        yield check
