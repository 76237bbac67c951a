"""Signals that the main thread does not come to, since a library has it: they end the process.

Python runs a signal's handler between two instructions of its own, and while XLA compiles there is
none for minutes. The signal's number arrives in a pipe all the same, which a thread reads.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from imagen_jax.runtime import exit_codes

GRACE = 3.0  # seconds from the second Ctrl-C until a process ends


class LateSignals:
    """Deadlines that signals set; made by `end_late`."""

    def __init__(self, said: str, patience: float | None) -> None:
        self.said, self._patience = said, patience
        self._interrupts, self._until, self._code = 0, float("inf"), 0

    def ignore_sigterm(self) -> None:
        """Let SIGTERM end nothing any more, however long its handler takes."""
        self._patience = None

    def note(self, number: int) -> None:
        """Set the deadline of a signal that has arrived; the earliest one counts."""
        self._interrupts += number == signal.SIGINT
        code = exit_codes.INTERRUPTED
        delay: float | None = GRACE
        if number == signal.SIGTERM:
            code, delay = exit_codes.PREEMPTED, self._patience
        elif number != signal.SIGINT or self._interrupts < 2:
            return
        if delay is not None and time.monotonic() + delay < self._until:
            self._until, self._code = time.monotonic() + delay, code

    def watch(self, numbers: int) -> None:
        """Read numbers from a pipe until it is closed, and end the process at a deadline."""
        while True:
            left = self._until - time.monotonic()
            waits = None if left == float("inf") else max(left, 0.0)
            if not select.select([numbers], [], [], waits)[0]:
                self._end()
            if not (arrived := os.read(numbers, 1)):
                return
            self.note(arrived[0])

    def _end(self) -> None:
        said = self.said if self._code == exit_codes.PREEMPTED else "interrupted"
        os.write(2, f"\nimagen: {said}\n".encode(errors="backslashreplace"))
        os._exit(self._code)


@contextmanager
def end_late(said: str = "", *, patience: float | None = None) -> Iterator[LateSignals]:
    """End this process where its main thread does not, unless the block ends before.

    That is `GRACE` after a second Ctrl-C and, where it is given, `patience` (in seconds) after
    SIGTERM, with the sentence `said`. To be called in the main thread; the innermost one counts.
    """
    late = LateSignals(said, patience)
    numbers, arrivals = os.pipe()
    os.set_blocking(arrivals, False)
    before = signal.set_wakeup_fd(arrivals, warn_on_full_buffer=False)
    thread = threading.Thread(target=late.watch, args=(numbers,), name="signals", daemon=True)
    thread.start()
    try:
        yield late
    finally:
        signal.set_wakeup_fd(before)
        os.close(arrivals)  # which ends the thread
        thread.join()
        os.close(numbers)


@contextmanager
def pass_signals_on() -> Iterator[None]:
    """Have `end_late` end nothing while another process, that signals are for, is waited for."""
    before = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
