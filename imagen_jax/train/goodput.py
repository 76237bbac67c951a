"""Goodput: the share of a run's time that was spent in steps, and where the rest went."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from tqdm import tqdm

LONG_START = 10.0  # seconds until the first step is done
# What a run does beside steps: begin (restore, compile, the first step), wait for data, save, and
# run hooks such as sampling.
Part = Literal["start", "data", "save", "hooks"]


class GoodputTracker:
    """Seconds by part; what is in none of them was spent in steps."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._began = clock, clock()
        self.seconds: dict[Part, float] = {"start": 0.0, "data": 0.0, "save": 0.0, "hooks": 0.0}

    @contextmanager
    def spend(self, part: Part) -> Iterator[None]:
        """Count the time of a block for a part."""
        start = self._clock()
        try:
            yield
        finally:
            self.seconds[part] += self._clock() - start

    def end_start(self) -> None:
        """Count all time so far as the start. Call it once the first step is done."""
        self.seconds = dict.fromkeys(self.seconds, 0.0) | {"start": self._clock() - self._began}

    def describe_start(self) -> str:
        """Describe a start that took long, with its time; "" for a short one."""
        took = self.seconds["start"]
        if took < LONG_START:
            return ""
        return f"compiled: the first step is done after {tqdm.format_interval(took)}"

    @property
    def total(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._began

    @property
    def goodput(self) -> float:
        """Share of the time that was spent in steps."""
        total = self.total
        return max(total - sum(self.seconds.values()), 0.0) / total if total else 0.0

    def shares(self) -> dict[str, float]:
        """The share of the time since the first step that each part took, `start` left out."""
        since = max(self.total - self.seconds["start"], 1e-9)
        return {
            f"time/{part}": seconds / since
            for part, seconds in self.seconds.items()
            if part != "start"
        }

    def summary(self) -> str:
        """Describe where the time went."""
        parts = ", ".join(f"{name} {tqdm.format_interval(s)}" for name, s in self.seconds.items())
        return (
            f"{self.goodput:.1%} of {tqdm.format_interval(self.total)} was spent in steps ({parts})"
        )
