"""Which inputs reach lines of the package that no input before them reached."""

import sys
from types import CodeType
from typing import Any

TOOL = 4  # a number of `sys.monitoring` that no other tool has


class LineCoverage:
    """Counts new lines; each is reported by Python once, so that it costs next to nothing.

    Python 3.11 has no `sys.monitoring`: there the places where inputs are refused guide alone.
    """

    def __init__(self, folder: str) -> None:
        self._folder, self._found = folder, 0
        self._monitoring: Any = getattr(sys, "monitoring", None)

    def __enter__(self) -> "LineCoverage":
        if self._monitoring is not None:
            events = self._monitoring.events
            self._monitoring.use_tool_id(TOOL, "imagen_jax fuzzing")
            self._monitoring.register_callback(TOOL, events.LINE, self._line)
            self._monitoring.set_events(TOOL, events.LINE)
        return self

    def __exit__(self, *_: object) -> None:
        if self._monitoring is not None:
            self._monitoring.free_tool_id(TOOL)

    def take_new(self) -> bool:
        """Return whether there were new lines since this was last asked."""
        found, self._found = self._found, 0
        return found > 0

    def _line(self, code: CodeType, number: int) -> object:
        self._found += code.co_filename.startswith(self._folder)
        return self._monitoring.DISABLE
