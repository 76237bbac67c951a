"""All that a run tells of itself, in one place: figures, lines, what went wrong, stalls."""

import sys
from collections.abc import Mapping

import jax

from imagen_jax import config
from imagen_jax.data import corrupt_records
from imagen_jax.data.pipeline import LoadedBatch
from imagen_jax.data.store.store import Store
from imagen_jax.io.log_uploader import LogUploader
from imagen_jax.io.workdir import Workdir
from imagen_jax.runtime import watchdog
from imagen_jax.train import anomalies, norms, progress, update_monitor, writers
from imagen_jax.train.goodput import GoodputTracker
from imagen_jax.train.state import TrainState
from imagen_jax.train.train_metrics import Throughput


class RunLogger:
    """Kept by every process; `say` and figures are process 0's alone.

    Use: `loaded` and `stepped` at every step, `judge` and `flush` now and then, with what may be
    saved in between, `beat` when a step is over.
    """

    def __init__(
        self,
        workdir: Workdir,
        experiment: config.Experiment,
        store: Store,
        *,
        speed: Throughput,
        start: int,
        ledger: GoodputTracker,
    ) -> None:
        options, process = experiment.train, jax.process_index()
        self._images, self._start, self._ledger = options.batch_size, start, ledger
        self._logs = LogUploader(workdir)
        folder = self._logs.folder
        self._tally = corrupt_records.CorruptRecordCounter(
            store, folder, most=experiment.data.max_damaged, process=process
        )
        self._health = anomalies.AnomalyMonitor(folder, store, limit=options.max_skipped)
        self._learning = update_monitor.UpdateMonitor(experiment)
        self.progress = progress.ProgressMeter(
            folder,
            writers.make_writers(workdir, folder, experiment, start=start) if process == 0 else (),
            speed,
            name=experiment.stage.name,
            steps=options.steps,
            start=start,
        )
        self.say = self.progress.say
        self._watchdog = watchdog.start_watchdog(folder)
        self.beat = self._watchdog.beat

    def loaded(self, step: int, loaded: LoadedBatch) -> None:
        """What a step trains on. Errors: ValueError when too much of the store is damaged."""
        self._tally.add(step, loaded)
        self._health.remember(step, loaded.batch.index)

    def stepped(self, step: int, scalars: Mapping[str, jax.Array]) -> None:
        """A step's metrics, not waited for, but after the first step, which compiles."""
        self.progress.add(step, scalars)
        if step == self._start + 1:
            jax.block_until_ready(scalars)
            self._ledger.started()

    def judge(self) -> bool:
        """Look at the steps since the last time; whether the last one was sound.

        Errors: health.Diverged.
        """
        for sentence in self._health.judge(self.progress.measured()):
            self.say(sentence)
        return not self._health.skipping

    def flush(self, step: int, state: TrainState) -> None:
        """Write the figures of what was judged since the last time, and the state's."""
        found = jax.device_get(norms.state_norms(state.params, state.ema))
        also = self._ledger.shares() | {tag: float(value) for tag, value in found.items()}
        also |= {
            "damaged": float(self._tally.damaged),
            "goodput": self._ledger.goodput,
        }
        steps = self.progress.flush(step, images=self._images, also=also)
        for sentence in self._learning.judge(steps, state.params, found):
            self.say(sentence)

    def push(self) -> None:
        """Copy logs to the run's bucket, where it is in one."""
        if sentence := self._logs.push():
            self.say(sentence)

    def close(self) -> None:
        """Finish all files."""
        self._watchdog.close()
        self.progress.close()
        if sentence := self._logs.close():
            print(sentence, file=sys.stderr)
