"""Output of long work is a log as well: it may have no reader, and its disk may be full."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from imagen_jax.io import log_files


class Tolerant:
    """A stream that drops what can't be written, and says so once; all else is the stream's own."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name, self._told = stream, name, False

    def write(self, text: str) -> int:
        """Write, or drop."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            if not self._told:
                self._told = True
                log_files.report_failure(self._name, error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """Until the block ends neither stdout nor stderr ends the program, whatever becomes of them."""
    before = sys.stdout, sys.stderr
    sys.stdout = Tolerant(sys.stdout, "standard output")
    sys.stderr = Tolerant(sys.stderr, "standard error")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            settle(stream)


def settle(stream: Any) -> None:
    """See to it that Python's last flush can't fail, which would change the exit code."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
