"""Pillow's warnings, ignored while any thread decodes; those of other modules stay as they are.

`warnings.catch_warnings` restores what another thread may have changed meanwhile: one filter is put
in by the first thread that comes and taken away by the last that goes.
"""

import threading
import warnings


class Quiet:
    """A context that any number of threads may be in at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._filter = warnings.filters[0]

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._filter in warnings.filters:
                warnings.filters.remove(self._filter)
