"""How many steps the devices are given at once.

Each call of the program computes again what all of its steps have in common: the conditioning, and
kernels at Winograd's points. Of small networks on CPUs that is as much as a step. So short steps go
together, as many as last about `SECONDS`; between two such spans clients that left are noticed.
"""

from collections.abc import Hashable

SECONDS = 0.25


class Spans:
    """The time of steps, by what decides on it, as it was last; used by one thread."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}  # of one step

    def choose_steps(self, kind: Hashable) -> int:
        """The steps of the next span: one where nothing is known."""
        return max(1, int(SECONDS / self._seconds.get(kind, SECONDS)))

    def note(self, kind: Hashable, *, steps: int, seconds: float) -> None:
        """Take note of a span of so many steps that took so long.

        What was measured may be too short: a span is at most twice as long as the one before.
        """
        if steps:
            known = self._seconds.get(kind, SECONDS)
            self._seconds[kind] = max(seconds / steps, known / 2)
