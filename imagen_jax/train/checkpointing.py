"""Checkpoints of a run: saved by steps and by the clock, and tried again when a save fails."""

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from imagen_jax import config
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.io.workdir import Workdir
from imagen_jax.train.state import TrainState

MINUTE = 60.0
LINE = 300  # characters of a reason
TRIES = 3  # saves that may fail one after another
PAUSE = 5.0  # seconds from a failed save to the next try, in which room may come back
FALLBACKS = ("~/.cache/imagen_jax/unsaved", tempfile.gettempdir())  # where room is looked for then
# What a background save can raise: a full disk, a folder that vanished, one that is read-only.
FAILURES = (OSError, ValueError, RuntimeError)


class CheckpointWriter:
    """Writes the checkpoints of a run, and decides when one is due."""

    def __init__(self, workdir: Workdir, experiment: config.Experiment) -> None:
        options = experiment.train
        self._experiment, self._options, self._workdir = experiment, options, workdir
        self.has_config = False  # whether one was written; it is written again if it vanishes
        self._checkpoints = checkpoints.Checkpoints(
            workdir, keep=options.keep, keep_every=options.keep_every
        )
        self._saved, self._last = time.monotonic(), -1
        self._failures, self._reason, self._failure = 0, "", ""
        self._retry, self._retry_from = False, 0.0
        self.stall_seconds = 0.0  # that steps waited for saves, in all

    def restore(self, target: TrainState) -> tuple[int, TrainState | None]:
        """Restore step and state of the newest whole checkpoint; 0 and None for a new run."""
        return self._checkpoints.restore_newest(target)

    def is_due(self, step: int) -> bool:
        """Tell whether to save after this step; the same answer on every process.

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

    def failure(self) -> str:
        """Describe what went wrong with the last save since the last call; "" if nothing did."""
        try:
            self._checkpoints.check()
        except FAILURES as error:
            self._failed(error)
        failure, self._failure = self._failure, ""
        return failure

    def is_retry_due(self) -> bool:
        """Tell whether a save that failed is to be tried again after this step.

        One process waits a while. Several have to agree, so they try at once.
        """
        return self._retry and (jax.process_count() > 1 or time.monotonic() >= self._retry_from)

    def save(self, step: int, state: TrainState) -> None:
        """Begin to write a checkpoint. A failure is told by the next `trouble`.

        Errors: ValueError after `TRIES` failures in a row, which names another folder that holds
        the state by then, or says that none took it.
        """
        if self._failures >= TRIES:
            raise ValueError(self._given_up(step, state))
        start, self._retry = time.perf_counter(), False
        try:
            self._checkpoints.wait()  # for the one before, as Orbax would
            if self._checkpoints.latest() == self._last:
                self._failures, self._reason = 0, ""
            self._last = step
            self._keep_config()
            self._checkpoints.save(step, state, self._experiment)
        except FAILURES as error:
            self._failed(error)
        self._saved = time.monotonic()
        self.stall_seconds += time.perf_counter() - start

    def finish(self, step: int, state: TrainState) -> None:
        """Save `state`, trying again until it is on disk. Errors: as `save`."""
        while self._checkpoints.latest() != step:
            try:
                self._checkpoints.wait()
            except FAILURES as error:
                self._failed(error)
            if self._checkpoints.latest() != step:
                print(self.failure() or f"the save of step {step} is missing", flush=True)
                if self._failures < TRIES:
                    time.sleep(max(self._retry_from - time.monotonic(), 0.0))
                self.save(step, state)

    def resume_advice(self, last_sound: int) -> str:
        """Describe how to resume a run that skipped steps; `last_sound` as in `AnomalyMonitor`."""
        try:
            self._checkpoints.wait()
        except FAILURES as error:
            self._failed(error)
        steps = self._checkpoints.steps()
        good = max((step for step in steps if step <= last_sound), default=None)
        doubtful = {
            self._checkpoints.folder / str(step): self._checkpoints.aside(step)
            for step in steps
            if step > last_sound
        }
        if not doubtful:
            there = "starts from scratch" if good is None else f"resumes from step {good}"
            return f"the same command then {there}"
        back = "start from scratch" if good is None else f"go back to step {good}, which was sound"
        return (
            f"the same command then resumes from step {steps[-1]}; if it is skipped again, its "
            f"weights are of no use: to {back}, first {_moving(doubtful)}"
        )

    def close(self) -> None:
        """Release what writes in the background; a failure there is printed, and hides no error."""
        try:
            self._checkpoints.close()
        except FAILURES as error:
            self._failed(error)
            print(f"a save failed ({self._reason})", file=sys.stderr)

    def _keep_config(self) -> None:
        """Write the config again where the run's folder was deleted. Errors: those of writing."""
        file = self._workdir / run_dir.CONFIG
        if self.has_config and jax.process_index() == 0 and not file.is_file():
            run_dir.write_config(self._workdir, self._experiment)
            print(f"{file} was gone: it is written again", file=sys.stderr, flush=True)

    def _failed(self, error: BaseException) -> None:
        """Count and note a save that failed. Errors: the error itself, if it is not of the save."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise error  # of a device, or of another process that is gone
        self._failures, self._retry = self._failures + 1, True
        self._retry_from = time.monotonic() + PAUSE
        self._checkpoints.forget_failure()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._reason = lines[0]
        if len(self._reason) > LINE:  # the cause is at its end, after places
            self._reason = f"{self._reason[: LINE // 2]} ... {self._reason[-LINE // 2 :]}"
        self._failure = f"a save failed ({self._reason}); it is tried again"

    def _given_up(self, step: int, state: TrainState) -> str:
        """Save the state elsewhere if that works, and return the sentence that says so."""
        folder = self._checkpoints.folder
        failed = f"{folder}: {TRIES} saves failed, the last one so: {self._reason}; "
        fallback = None if jax.process_count() > 1 else self._save_elsewhere(step, state)
        if fallback is None:
            return (
                f"{failed}the newest whole checkpoint is {self._checkpoints.latest()}; make room "
                "or check the rights there, then give the same command again"
            )
        return (
            f"{failed}step {step} is saved in {fallback} instead: make room or check the rights, "
            f"then {_moving({fallback: folder / str(step)})} and give the same command again"
        )

    def _save_elsewhere(self, step: int, state: TrainState) -> Path | None:
        """Save the state in a new folder of this machine; None where none takes it."""
        name = f"{self._checkpoints.folder.parent.name}-"
        for base in FALLBACKS:
            found = None
            try:
                inside = Path(base).expanduser()
                inside.mkdir(parents=True, exist_ok=True)
                found = Path(tempfile.mkdtemp(prefix=name, dir=inside))
                saves = checkpoints.Checkpoints(found)
                saves.save(step, state, self._experiment)
                saves.wait()
                saves.close()
                return found / run_dir.CHECKPOINTS / str(step)
            except FAILURES as error:
                print(f"{found or base}: no room for step {step} either ({error})", flush=True)
                if found is not None:
                    shutil.rmtree(found, ignore_errors=True)
        return None


def _moving(targets: Mapping[Workdir, Workdir]) -> str:
    """Return the command that moves each folder to its target."""
    pairs = [f"{shlex.quote(str(a))} {shlex.quote(str(b))}" for a, b in targets.items()]
    parents = {target.parent for target in targets.values()}
    if not all(isinstance(parent, Path) for parent in parents):
        return "`" + " && ".join(f"gcloud storage cp --recursive {pair}" for pair in pairs) + "`"
    made = [f"mkdir -p {shlex.quote(str(parent))}" for parent in parents if not parent.is_dir()]
    return "`" + " && ".join(made + [f"mv {pair}" for pair in pairs]) + "`"
