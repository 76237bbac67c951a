"""When a run is saved: by steps and by the clock; and what happens when a save fails."""

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
SHELTERS = ("~/.cache/imagen_jax/unsaved", tempfile.gettempdir())  # where room is looked for then
# What a background save can raise: a full disk, a folder that vanished, one that is read-only.
FAILURES = (OSError, ValueError, RuntimeError)


class CheckpointWriter:
    """The checkpoints of a run, and the decision when to make one."""

    def __init__(self, workdir: Workdir, experiment: config.Experiment) -> None:
        options = experiment.train
        self._experiment, self._options, self._workdir = experiment, options, workdir
        self.has_config = False  # whether one was written, and is again where it has gone
        self._saves = checkpoints.Checkpoints(
            workdir, keep=options.keep, keep_every=options.keep_every
        )
        self._saved, self._last = time.monotonic(), -1
        self._failures, self._reason, self._trouble = 0, "", ""
        self._owed, self._owed_from = False, 0.0
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
        """What went wrong with the last save since it was asked; "" if nothing did."""
        try:
            self._saves.check()
        except FAILURES as error:
            self._failed(error)
        told, self._trouble = self._trouble, ""
        return told

    def is_owed(self) -> bool:
        """Whether a save that failed is to be tried again after this step.

        Alone it waits a while. Several processes have to agree, so they try at once.
        """
        return self._owed and (jax.process_count() > 1 or time.monotonic() >= self._owed_from)

    def save(self, step: int, state: TrainState) -> None:
        """Begin to write a checkpoint. A failure is told by the next `trouble`.

        Errors: ValueError after `TRIES` failures in a row, which names another folder that holds
        the state by then, or says that none took it.
        """
        if self._failures >= TRIES:
            raise ValueError(self._given_up(step, state))
        start, self._owed = time.perf_counter(), False
        try:
            self._saves.wait()  # for the one before, as Orbax would
            if self._saves.latest() == self._last:
                self._failures, self._reason = 0, ""
            self._last = step
            self._keep_config()
            self._saves.save(step, state, self._experiment)
        except FAILURES as error:
            self._failed(error)
        self._saved = time.monotonic()
        self.stall_seconds += time.perf_counter() - start

    def finish(self, step: int, state: TrainState) -> None:
        """Until `state` is on disk, trying again where that fails. Errors: as `save`."""
        while self._saves.latest() != step:
            try:
                self._saves.wait()
            except FAILURES as error:
                self._failed(error)
            if self._saves.latest() != step:
                print(self.trouble() or f"the save of step {step} is missing", flush=True)
                if self._failures < TRIES:
                    time.sleep(max(self._owed_from - time.monotonic(), 0.0))
                self.save(step, state)

    def way_back(self, proven: int) -> str:
        """Resume a run that skipped steps; `proven` is as in `anomalies.AnomalyMonitor`."""
        try:
            self._saves.wait()
        except FAILURES as error:
            self._failed(error)
        steps = self._saves.steps()
        good = max((step for step in steps if step <= proven), default=None)
        doubtful = {
            self._saves.folder / str(step): self._saves.aside(step)
            for step in steps
            if step > proven
        }
        if not doubtful:
            there = "begins anew" if good is None else f"goes on from step {good}"
            return f"the same command then {there}"
        back = "begin anew" if good is None else f"go back to step {good}, which was sound"
        return (
            f"the same command then goes on from step {steps[-1]}; if it is skipped again, its "
            f"weights are of no use: to {back}, first {_moving(doubtful)}"
        )

    def close(self) -> None:
        """Release what writes in the background; a failure there is told, and hides no error."""
        try:
            self._saves.close()
        except FAILURES as error:
            self._failed(error)
            print(f"a save failed ({self._reason})", file=sys.stderr)

    def _keep_config(self) -> None:
        """Where the run's folder was deleted, it is a run again. Errors: those of writing."""
        file = self._workdir / run_dir.CONFIG
        if self.has_config and jax.process_index() == 0 and not file.is_file():
            run_dir.write_config(self._workdir, self._experiment)
            print(f"{file} was gone: it is written again", file=sys.stderr, flush=True)

    def _failed(self, error: BaseException) -> None:
        """Count and note a save that failed. Errors: what is no failure of it."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise error  # of a device, or of another process that is gone
        self._failures, self._owed = self._failures + 1, True
        self._owed_from = time.monotonic() + PAUSE
        self._saves.forget_failure()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._reason = lines[0]
        if len(self._reason) > LINE:  # the cause is at its end, after places
            self._reason = f"{self._reason[: LINE // 2]} ... {self._reason[-LINE // 2 :]}"
        self._trouble = f"a save failed ({self._reason}); it is tried again"

    def _given_up(self, step: int, state: TrainState) -> str:
        """The sentence of a run that can't save, whose state is put elsewhere if that works."""
        folder = self._saves.folder
        failed = f"{folder}: {TRIES} saves failed, the last one so: {self._reason}; "
        shelter = None if jax.process_count() > 1 else self._shelter(step, state)
        if shelter is None:
            return (
                f"{failed}the newest whole checkpoint is {self._saves.latest()}; make room or "
                "check the rights there, then give the same command again"
            )
        return (
            f"{failed}step {step} is saved in {shelter} instead: make room or check the rights, "
            f"then {_moving({shelter: folder / str(step)})} and give the same command again"
        )

    def _shelter(self, step: int, state: TrainState) -> Path | None:
        """A new folder of this machine that holds the state; None where none takes it."""
        name = f"{self._saves.folder.parent.name}-"
        for base in SHELTERS:
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
    """The command, for people, that moves each folder to its target."""
    pairs = [f"{shlex.quote(str(a))} {shlex.quote(str(b))}" for a, b in targets.items()]
    parents = {target.parent for target in targets.values()}
    if not all(isinstance(parent, Path) for parent in parents):
        return "`" + " && ".join(f"gcloud storage cp --recursive {pair}" for pair in pairs) + "`"
    made = [f"mkdir -p {shlex.quote(str(parent))}" for parent in parents if not parent.is_dir()]
    return "`" + " && ".join(made + [f"mv {pair}" for pair in pairs]) + "`"
