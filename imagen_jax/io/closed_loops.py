"""Silence about answers that come when nobody waits for them any more.

Orbax reads all arrays of a checkpoint at once, in a loop of asyncio, and raises what the first of
them meets. TensorStore then tells the closed loop of each of the others, and Python would print a
traceback for it.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

CLOSED = "Event loop is closed"  # asyncio's words
_MARK = "ignores_closed_loops"


@contextlib.contextmanager
def ignore_late_answers() -> Iterator[None]:
    """Say nothing of them in the block nor, where it fails, afterwards: they come at any time."""
    before = sys.unraisablehook
    if not getattr(before, _MARK, False):
        sys.unraisablehook = _quiet(before)
    yield
    sys.unraisablehook = before


def _quiet(before: Any) -> Any:
    def hook(found: Any) -> None:
        if not (found.exc_type is RuntimeError and str(found.exc_value) == CLOSED):
            before(found)

    setattr(hook, _MARK, True)
    return hook
