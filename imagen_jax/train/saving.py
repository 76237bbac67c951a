"""When a run is saved: by steps and by the clock; and what happens when a save fails."""

import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from imagen_jax import checkpoint, config
from imagen_jax.train.state import TrainState
from imagen_jax.workdir import Workdir

MINUTE = 60.0
LINE = 300  # characters of a reason
TRIES = 3  # saves that may fail one after another
# What a background save can raise: a full disk, a folder that vanished, one that is read-only.
FAILURES = (OSError, ValueError, RuntimeError)


class Saving:
    """The checkpoints of a run, and the decision when to make one."""

    def __init__(self, workdir: Workdir, experiment: config.Experiment) -> None:
        options = experiment.train
        self._experiment, self._options = experiment, options
        self._saves = checkpoint.Checkpoints(
            workdir, keep=options.keep, keep_every=options.keep_every
        )
        self._saved, self._last = time.monotonic(), -1
        self._failures, self._trouble = 0, ""
        self.stall_seconds = 0.0  # that steps waited for saves, in all

    def restore(self, target: TrainState) -> tuple[int, TrainState | None]:
        """Step and state of the newest whole checkpoint; 0 and None for a new run."""
        return self._saves.restore_newest(target)

    def is_due(self, step: int) -> bool:
        """Whether to save after this step; the same answer on every process.

        The clock is process 0's, and is asked every `log_every` steps: asking takes a message.
        """
        options = self._options
        if step % options.save_every == 0 or (
            options.keep_every and step % options.keep_every == 0
        ):
            return True
        if not options.save_minutes or step % options.log_every:
            return False
        late = time.monotonic() - self._saved > MINUTE * options.save_minutes
        if jax.process_count() == 1:
            return late
        return bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))

    def trouble(self) -> str:
        """What went wrong with the last save, in the background; "" if nothing did.

        Errors: ValueError after `TRIES` failures in a row.
        """
        try:
            self._saves.check()
        except FAILURES as error:
            self._trouble = self._failed(error)
        return self._trouble

    def save(self, step: int, state: TrainState) -> None:
        """Begin to write a checkpoint. A failure is told by the next `trouble`."""
        start = time.perf_counter()
        self._trouble = ""
        try:
            self._saves.wait()  # for the one before, as Orbax would
            if self._saves.latest() == self._last:
                self._failures = 0
            self._last = step
            self._saves.save(step, state, self._experiment)
        except FAILURES as error:
            self._trouble = self._failed(error)
        self._saved = time.monotonic()
        self.stall_seconds += time.perf_counter() - start

    def finish(self, step: int, state: TrainState) -> None:
        """Until `state` is on disk, trying again where that fails. Errors: as `trouble`."""
        while self._saves.latest() != step:
            try:
                self._saves.wait()
            except FAILURES as error:
                self._trouble = self._failed(error)
            if self._saves.latest() != step:
                print(self._trouble or f"the save of step {step} is missing", flush=True)
                self.save(step, state)

    def close(self) -> None:
        """Release what writes in the background."""
        self._saves.close()

    def _failed(self, error: BaseException) -> str:
        """The sentence about a save that failed. Errors: as `trouble`; what is no failure of it."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise error  # of a device, or of another process that is gone
        self._failures += 1
        self._saves.forget_failure()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0]
        if len(reason) > LINE:  # the cause is at its end, after places
            reason = f"{reason[: LINE // 2]} ... {reason[-LINE // 2 :]}"
        if self._failures >= TRIES:
            raise ValueError(
                f"{self._saves.folder}: {TRIES} saves failed, the last one so: {reason}; the "
                f"newest whole checkpoint is {self._saves.latest()}; make room or check the rights "
                "there, then give the same command again"
            ) from error
        return f"a save failed ({reason}); it is tried again"
