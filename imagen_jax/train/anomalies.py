"""Anomalies of a run: steps that were skipped, and losses far from the usual."""

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imagen_jax.data.store.store import Store
from imagen_jax.io import log_files
from imagen_jax.train.step import GUARDED

FILE = "skipped_steps.jsonl"  # of a process: skipped_steps-1.jsonl for the second
USUAL = 200  # steps whose losses define what is usual
SPIKE = 10.0  # times the usual deviation from the median


class Diverged(FloatingPointError):
    """Too many steps in a row had to be skipped; `last_sound` as in `AnomalyMonitor`."""

    def __init__(self, sentence: str, last_sound: int) -> None:
        super().__init__(sentence)
        self.last_sound = last_sound


class AnomalyMonitor:
    """Watches the steps of a run; skipped steps are logged with their records.

    `last_sound` is the last step whose weights gave a finite loss and gradient at the step after
    it; -1 while there is none. `is_skipping`: the last step was skipped.
    """

    def __init__(self, workdir: Path, store: Store, *, limit: int) -> None:
        process = jax.process_index()
        name = FILE if not process else FILE.replace(".", f"-{process}.")
        self._log, self._store, self._limit = log_files.JsonLines(workdir / name), store, limit
        self.last_sound = -1
        self._records: dict[int, np.ndarray] = {}
        self._losses: deque[float] = deque(maxlen=USUAL)
        self._row = 0  # steps skipped one after another, so far

    @property
    def is_skipping(self) -> bool:
        """Tell whether the last step that was checked was skipped."""
        return self._row > 0

    def record(self, step: int, index: np.ndarray) -> None:
        """Keep which records this process gave to a step, until `check` has seen it."""
        self._records[step] = index

    def check(self, steps: Mapping[int, Mapping[str, Any]]) -> Sequence[str]:
        """Return sentences about what is unusual in these steps' metrics.

        Errors: Diverged after more than `limit` skipped steps in a row.
        """
        sentences = []
        for step, metrics in steps.items():
            records = self._records.pop(step, np.zeros(0, np.int32))
            broken = next((tag for tag in GUARDED if not math.isfinite(metrics[tag])), None)
            if broken in (None, "update_norm"):
                self.last_sound = step - 1
            if broken:
                self._row += 1
                self._write(step, records)
                what = GUARDED[broken]
                sentences.append(f"step {step} was skipped: its {what} is not finite")
                if self._row > self._limit:
                    raise Diverged(self._sentence(step, what), self.last_sound)
                continue
            self._row = 0
            loss = float(metrics["loss"])
            if usual := self._is_spike(loss):
                sentences.append(f"step {step}: the loss is {loss:.4g}, usual is {usual}")
            self._losses.append(loss)
        return sentences

    def _is_spike(self, loss: float) -> str:
        """The usual loss, if this one is far above; "" otherwise, or while little is known."""
        if len(self._losses) < USUAL // 4:
            return ""
        middle = statistics.median(self._losses)
        deviation = statistics.median(abs(x - middle) for x in self._losses)
        return f"{middle:.4g}" if loss > middle + SPIKE * deviation else ""

    def _write(self, step: int, records: np.ndarray) -> None:
        keys = [f"{self._store.split}-{index:07d}" for index in records.tolist()]
        self._log.add({"step": step, "records": keys})

    def _sentence(self, step: int, what: str) -> str:
        return (
            f"{self._row} steps in a row were skipped, the last of them {step}: its {what} is not "
            f"finite; their records are in {self._log.file}; lower optim.learning_rate or set "
            "optim.clip_norm"
        )
