"""The health of steps: those that were skipped, and losses far from the usual."""

import json
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imagen_jax.data.store import Store
from imagen_jax.train.step import SKIPPED

FILE = "skipped_steps.jsonl"  # of a process: skipped_steps-1.jsonl for the second
USUAL = 200  # steps whose losses tell what is usual
SPIKE = 10.0  # times the usual deviation from the median


class Diverged(FloatingPointError):
    """Too many steps in a row had to be skipped."""


class Health:
    """Watches the steps of a run; what was skipped is written down with its records."""

    def __init__(self, workdir: Path, store: Store, *, limit: int) -> None:
        process = jax.process_index()
        name = FILE if not process else FILE.replace(".", f"-{process}.")
        self._file, self._store, self._limit = workdir / name, store, limit
        self._records: dict[int, np.ndarray] = {}
        self._losses: deque[float] = deque(maxlen=USUAL)
        self._row = 0  # steps skipped one after another, so far

    def remember(self, step: int, index: np.ndarray) -> None:
        """Which records this process gave to a step, until `judge` has seen it."""
        self._records[step] = index

    def judge(self, steps: Mapping[int, Mapping[str, Any]]) -> Sequence[str]:
        """Sentences about what is unusual in these steps' metrics.

        Errors: Diverged after more than `limit` skipped steps in a row.
        """
        told = []
        for step, metrics in steps.items():
            records = self._records.pop(step, np.zeros(0, np.int32))
            if metrics[SKIPPED]:
                self._row += 1
                self._write(step, records)
                told.append(f"step {step} was skipped: its loss or gradient is not finite")
                if self._row > self._limit:
                    raise Diverged(self._sentence(step))
                continue
            self._row = 0
            loss = float(metrics["loss"])
            if usual := self._is_spike(loss):
                told.append(f"step {step}: the loss is {loss:.4g}, usual is {usual}")
            self._losses.append(loss)
        return told

    def _is_spike(self, loss: float) -> str:
        """The usual loss, if this one is far above; "" otherwise, or while little is known."""
        if len(self._losses) < USUAL // 4:
            return ""
        middle = statistics.median(self._losses)
        deviation = statistics.median(abs(x - middle) for x in self._losses)
        return f"{middle:.4g}" if loss > middle + SPIKE * deviation else ""

    def _write(self, step: int, records: np.ndarray) -> None:
        keys = [f"{self._store.split}-{index:07d}" for index in records.tolist()]
        with self._file.open("a") as file:
            file.write(json.dumps({"step": step, "records": keys}) + "\n")

    def _sentence(self, step: int) -> str:
        return (
            f"{self._row} steps in a row were skipped, the last of them {step}: loss or "
            f"gradient is not finite; their records are in {self._file}; lower "
            "optim.learning_rate or set optim.clip_norm, then give the same command again"
        )
