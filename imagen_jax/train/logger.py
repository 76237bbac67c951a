"""The log of a run, in one place: metrics, lines for people, anomalies, stalls."""

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
    """Logs a run. Every process has one; lines and metrics are written by process 0 alone.

    Call `record_batch` and `record_step` at every step; `check_steps`, and after a save `flush`,
    now and then; `heartbeat` when a step is over.
    """

    def __init__(
        self,
        workdir: Workdir,
        experiment: config.Experiment,
        store: Store,
        *,
        speed: Throughput,
        start: int,
        goodput: GoodputTracker,
    ) -> None:
        options, process = experiment.train, jax.process_index()
        self._images, self._start, self._goodput = options.batch_size, start, goodput
        self._logs = LogUploader(workdir)
        folder = self._logs.folder
        self._corrupt = corrupt_records.CorruptRecordCounter(
            store, folder, most=experiment.data.max_damaged, process=process
        )
        self._anomalies = anomalies.AnomalyMonitor(folder, store, limit=options.max_skipped)
        self._updates = update_monitor.UpdateMonitor(experiment)
        self.progress = progress.ProgressMeter(
            folder,
            writers.make_writers(workdir, folder, experiment, start=start) if process == 0 else (),
            speed,
            name=experiment.stage.name,
            steps=options.steps,
            start=start,
        )
        self.info = self.progress.info
        self._watchdog = watchdog.start_watchdog(folder)
        self.heartbeat = self._watchdog.beat

    def record_batch(self, step: int, loaded: LoadedBatch) -> None:
        """Record what a step trains on. Errors: ValueError when too many records are damaged."""
        self._corrupt.add(step, loaded)
        self._anomalies.record(step, loaded.batch.index)

    def record_step(self, step: int, scalars: Mapping[str, jax.Array]) -> None:
        """Record a step's metrics; waits for those of the first step alone, which compiles."""
        self.progress.add(step, scalars)
        if step == self._start + 1:
            jax.block_until_ready(scalars)
            self._goodput.end_start()
            self.progress.end_start(step)
            if sentence := self._goodput.describe_start():
                self.info(sentence)

    def check_steps(self) -> bool:
        """Check the steps since the last time, and tell whether the last one was sound.

        Errors: anomalies.Diverged.
        """
        for sentence in self._anomalies.check(self.progress.fetch()):
            self.info(sentence)
        return not self._anomalies.is_skipping

    def flush(self, step: int, state: TrainState) -> None:
        """Write the metrics of the steps checked since the last time, and of the state."""
        found = jax.device_get(norms.state_norms(state.params, state.ema))
        also = self._goodput.shares() | {tag: float(value) for tag, value in found.items()}
        also |= {
            "damaged": float(self._corrupt.damaged),
            "goodput": self._goodput.goodput,
        }
        steps = self.progress.flush(step, images=self._images, also=also)
        for sentence in self._updates.check(steps, state.params, found):
            self.info(sentence)

    def upload(self) -> None:
        """Copy logs to the run's bucket, if it has one."""
        if sentence := self._logs.push():
            self.info(sentence)

    def close(self) -> None:
        """Finish all files."""
        self._watchdog.close()
        self.progress.close()
        if sentence := self._logs.close():
            print(sentence, file=sys.stderr)
