"""Pillow's warnings, ignored while any thread decodes; those of other modules stay as they are.

`warnings.catch_warnings` restores what another thread may have changed meanwhile. Here the first
thread that comes puts one filter in, and the last that goes takes it away.
"""

import re
import threading
import warnings

PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as `warnings.filters` has them


class SuppressedWarnings:
    """A context that any number of threads may be in at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if warnings.filters[:1] != [PILLOW]:
                warnings.filters.insert(0, PILLOW)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            while not self._inside and PILLOW in warnings.filters:
                warnings.filters.remove(PILLOW)
