"""Lines on stderr that say that something out of reach is asked again."""

import contextlib
import math
import sys
import time

QUIET = 1.0  # seconds between two lines: threads meet the same failure at once


class _Lines:
    """Lines, but for those that come right after one."""

    def __init__(self) -> None:
        self._last = -math.inf

    def write(self, line: str) -> None:
        now = time.monotonic()
        if now - self._last < QUIET:
            return
        self._last = now
        with contextlib.suppress(OSError, ValueError):  # nobody reads it: no reason to fail
            print(line, file=sys.stderr, flush=True)


_LINES = _Lines()


def say(place: str, reason: str, number: int, tries: int) -> None:
    """Say that try `number` of `tries` follows, unless a line has just been written."""
    _LINES.write(f"{place} did not answer ({reason}): asking again, {number} of {tries}")
