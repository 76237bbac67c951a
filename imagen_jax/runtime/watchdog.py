"""A watchdog: where every thread stands, when a step takes far longer than the ones before."""

import contextlib
import faulthandler
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import jax

from imagen_jax.io.atomic import refuse_link
from imagen_jax.io.log_files import Guard

STACKS = "stacks.log"
FACTOR = 10  # times the median of recent steps
LEAST = 60.0  # seconds: shorter stalls are nobody's business
RECENT = 50  # steps
INTERVAL = 1.0  # seconds between two looks


class Watchdog:
    """Notes when steps end, and looks now and then how long ago the last one did.

    Nothing is said before the first step has ended (it compiles), and once a stall. A save or a
    hook is part of its step.
    """

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.file, self._guard = file, Guard(str(file))
        self._clock = clock
        self._last: float | None = None
        self._took: deque[float] = deque(maxlen=RECENT)
        self._reported = False
        self._closed = threading.Event()

    def beat(self) -> None:
        """A step has ended."""
        now = self._clock()
        if self._last is not None:
            self._took.append(now - self._last)
        self._last, self._reported = now, False

    def check(self) -> None:
        """Say so and write all stacks, to stderr and the file, when this step is a stall."""
        last, took = self._last, list(self._took)
        if last is None or self._reported:
            return
        usual = statistics.median(took) if took else 0.0
        waited = self._clock() - last
        if waited < max(LEAST, FACTOR * usual):
            return
        self._reported = True
        line = (
            f"a step has taken {waited:.0f} s so far, usually it takes {usual:.2g} s; where every "
            f"thread stands is below and in {self.file}"
        )
        print(line, file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):  # a notebook's stderr is no file
            faulthandler.dump_traceback(file=sys.stderr)
        self._guard.run(lambda: self._write(line))  # the disk may be the cause

    def _write(self, line: str) -> None:
        with open(self.file, "a", opener=refuse_link) as file:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", file=file, flush=True)
            faulthandler.dump_traceback(file=file)

    def run(self) -> None:
        """Look now and then, until `close`."""
        while not self._closed.wait(INTERVAL):
            self.check()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()


def start_watchdog(workdir: Path) -> Watchdog:
    """A watchdog whose thread looks until `close`; each process has its own file."""
    index = jax.process_index()
    watchdog = Watchdog(workdir / (f"stacks-{index}.log" if index else STACKS))
    threading.Thread(target=watchdog.run, name="watchdog", daemon=True).start()
    return watchdog
