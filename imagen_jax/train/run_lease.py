"""One run at a time in a folder, of one process or several: process 0 holds its lease."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from imagen_jax.io import run_dir
from imagen_jax.io.workdir import Workdir
from imagen_jax.runtime import lease

COMMAND = "imagen train"


@contextlib.contextmanager
def hold_run(workdir: Workdir, *, option: str = "--workdir") -> Iterator[Callable[[], None]]:
    """Hold a run's folder until the block ends; a function that raises once another has it.

    To be called by every process. Errors: ValueError on all of them where another run holds it.
    """
    refusal = None
    with contextlib.ExitStack() as stack:
        check = _nothing
        if jax.process_index() == 0:
            try:
                check = stack.enter_context(
                    lease.hold(workdir, command=COMMAND, option=option)
                ).check
                stack.enter_context(lease.remove_empty_folders(workdir / run_dir.CHECKPOINTS))
            except ValueError as error:
                refusal = error
        free = refusal is None
        if jax.process_count() > 1:
            free = bool(multihost_utils.broadcast_one_to_all(np.asarray(free)))
        if refusal is not None:
            raise refusal
        if not free:
            raise ValueError(f"{workdir} was not given to process 0, whose own log says why")
        yield check


def _nothing() -> None: ...
