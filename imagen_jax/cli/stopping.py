"""SIGTERM, and Google Cloud's notice, while images are sampled: end between two batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagen_jax.parallel import distributed
from imagen_jax.runtime import exit_codes

UNFINISHED = "unfinished"  # subfolder for batches that are done, until all are


@contextmanager
def watch_between_batches(unfinished: Path) -> Iterator[Callable[[], None]]:
    """A function to call after each batch.

    Errors: Preempted, of `exit_codes`, once this process is asked to stop; the batches are in
    `unfinished`.
    """
    from imagen_jax.runtime import preemption

    with preemption.watch_for_preemption(distributed.metadata_server()) as watch:

        def check() -> None:
            if watch.reached(0):
                raise exit_codes.Preempted(
                    f"asked to stop; the images so far are kept in {unfinished}: give the same "
                    "command again, which resumes"
                )

        yield check
