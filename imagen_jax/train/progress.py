"""Progress of a run: a bar and lines for people, metrics and images for its writers."""

import functools
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from imagen_jax.io.log_files import Guard
from imagen_jax.train.step import SKIPPED
from imagen_jax.train.train_metrics import Throughput
from imagen_jax.train.writers import Writer


class ProgressMeter:
    """The bar and the metrics of one run; process 0 alone shows them, and has writers.

    `add` each step's metrics (device arrays, not waited for); now and then `fetch`, then `flush`.
    """

    def __init__(
        self,
        folder: Path,
        writers: Sequence[Writer],
        speed: Throughput,
        *,
        name: str,
        steps: int,
        start: int,
    ) -> None:
        self.writes = jax.process_index() == 0
        self.folder, self.name, self.steps = folder, name, steps
        self._writers, self._speed = [(writer, Guard(writer.name)) for writer in writers], speed
        self._pending: dict[int, Mapping[str, jax.Array]] = {}
        self._measured: dict[int, Mapping[str, np.ndarray]] = {}
        self._clock, self._clock_step = self._began = time.perf_counter(), start
        self._bar = tqdm(
            total=steps,
            initial=start,
            desc=name,
            unit="step",
            disable=not (self.writes and sys.stderr.isatty()),
            smoothing=0.05,
            dynamic_ncols=True,
        )

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Keep one step's metrics until the next `fetch`."""
        self._pending[step] = metrics
        self._bar.update()

    def end_start(self, step: int) -> None:
        """Count time from here: what compiling took tells nothing of the steps that follow."""
        self._clock, self._clock_step = time.perf_counter(), step

    def fetch(self) -> dict[int, Mapping[str, np.ndarray]]:
        """Fetch each step's metrics since the last time; waits for the devices."""
        rows, self._pending = jax.device_get(self._pending), {}
        self._measured |= rows
        return rows

    def flush(
        self, step: int, *, images: int, also: Mapping[str, float]
    ) -> dict[int, Mapping[str, np.ndarray]]:
        """Write the mean of what was fetched since the last flush, and return the steps' own.

        `images` is their number a step; `also` are further metrics of the run so far.
        """
        rows, self._measured = self._measured, {}
        values = _mean(list(rows.values()))
        now = time.perf_counter()
        if step == self._clock_step:  # the first step alone
            self._clock, self._clock_step = self._began
        done, took = step - self._clock_step, max(now - self._clock, 1e-9)
        rate = images * done / took
        values |= {"images_per_s": rate, **self._speed.metrics(rate), **also}
        self._clock, self._clock_step = now, step
        if self.writes:
            left = (self.steps - step) * took / max(done, 1)
            self._bar.set_postfix_str(f"loss {values['loss']:.4f}")
            tqdm.write(
                f"{self.name} {step}/{self.steps}  loss {values['loss']:.4f}  "
                f"grad {values['grad_norm']:.3f}  {values['images_per_s']:.0f} images/s  "
                f"left {tqdm.format_interval(left)}"
            )
            sys.stdout.flush()
        for writer, guard in self._writers:
            guard.run(functools.partial(writer.scalars, step, values))
        return rows

    def info(self, sentence: str) -> None:
        """Print one line above the bar; process 0 alone does."""
        if self.writes:
            tqdm.write(f"{self.name}: {sentence}")
            sys.stdout.flush()

    def images(self, step: int, images: np.ndarray) -> None:
        """Show images (b, h, w, 3) uint8."""
        for writer, guard in self._writers:
            guard.run(functools.partial(writer.images, step, images))

    def close(self) -> None:
        """Finish the bar and the files."""
        self._bar.close()
        for writer, guard in self._writers:
            guard.run(writer.close)


def _mean(rows: list[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Means over steps; `sum/x` over `count/x` becomes `loss/x`, left out where nothing fell.

    Skipped steps count as skipped, and nowhere else: their metrics are not finite.
    """
    sound = [row for row in rows if not row[SKIPPED]]
    measured = {tag: [float(row[tag]) for row in sound] for tag in rows[0]}
    values = {
        tag: statistics.fmean(found)
        for tag, found in measured.items()
        if found and not tag.startswith(("sum/", "count/"))
    }
    for tag in (t for t in measured if t.startswith("sum/")):
        count = sum(measured["count/" + tag.removeprefix("sum/")])
        if count:
            values["loss/" + tag.removeprefix("sum/")] = sum(measured[tag]) / count
    values = {"loss": math.nan, "grad_norm": math.nan} | values  # where every step was skipped
    return values | {SKIPPED: sum(float(row[SKIPPED]) for row in rows)}
