"""Log files: an entry is appended whole or not at all, and one that can't be written is dropped.

Readers take whole lines alone: a machine that dies, or an older version on a full disk, leaves half
of one.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from imagen_jax.io import json_reader
from imagen_jax.io.atomic import refuse_link

TAIL = 2**20  # bytes: no line is longer
MOST = 2**28  # bytes of a log that are read: a million entries of our own have fewer
LARGEST = 2**63  # of a whole number in one


class Guard:
    """Writes to one log; a failure is reported once, and costs that log alone."""

    def __init__(self, name: str) -> None:
        self._name, self._lost = name, 0

    def run(self, write: Callable[[], object]) -> bool:
        """Write one entry, or drop it; whether it was written."""
        try:
            write()
        except Exception as error:  # the writers' errors have no common kind
            self._lost += 1
            if self._lost == 1:
                report_failure(self._name, error)
            return False
        if self._lost:
            _report(f"{self._name}: written again; {self._lost} entries are missing")
            self._lost = 0
        return True


class JsonLines:
    """A log of JSON objects, one a line; half a line at its end is taken away first."""

    def __init__(self, file: Path) -> None:
        self.file, self._guard = file, Guard(str(file))
        self._guard.run(lambda: repair(file))

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry, or say that the log can't be written."""
        self._guard.run(lambda: append_line(self.file, format_line(entry)))


def report_failure(name: str, error: BaseException) -> None:
    """Say that a log can't be written, and why."""
    _report(f"{name}: not written ({failure_reason(error)}); the run continues without it")


def _report(sentence: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads us any more
        tqdm.write(sentence, file=sys.stderr)


def format_line(entry: dict[str, Any]) -> bytes:
    """An entry as a log of JSON lines has it."""
    return (json.dumps(entry) + "\n").encode()


def append_line(file: Path, data: bytes) -> None:
    """Append all of `data`, or nothing of it. Errors: OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab", buffering=0, opener=refuse_link) as opened:
        size = opened.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[opened.write(data) :]
        except OSError:
            with contextlib.suppress(OSError):  # the first reason counts
                opened.truncate(size)
            raise


def repair(file: Path) -> None:
    """Take away half a line at the end of a log of JSON lines. Errors: OSError."""
    if not file.is_file():
        return
    with open(file, "r+b", opener=refuse_link) as opened:
        size = opened.seek(0, os.SEEK_END)
        begin = opened.seek(max(size - TAIL, 0))
        whole, newline, last = opened.read().rpartition(b"\n")
        if last and parse_entries(last.decode(errors="replace")):
            opened.write(b"\n")
        elif last:
            opened.truncate(begin + len(whole) + len(newline))


def read_entries(file: Path, *numbers: str) -> list[dict[str, Any]]:
    """The whole entries of a log of JSON lines, as `parse_entries`; none where there is no file.

    Errors: OSError; ValueError for a file of more than `MOST` bytes.
    """
    if not file.is_file():
        return []
    with file.open("rb") as opened:
        data = opened.read(MOST + 1)
    if len(data) > MOST:
        raise ValueError(f"{file} has more than {MOST:,} bytes: no log of ours has; move it away")
    return parse_entries(data.decode(errors="replace"), *numbers)


def parse_entries(text: str, *numbers: str) -> list[dict[str, Any]]:
    """The JSON objects among the lines of a text, of those that have these fields, numbers all."""
    found = []
    for one in text.split("\n"):
        with contextlib.suppress(ValueError):
            entry = json_reader.parse_object(one, where="it", remedy="-")
            if all(_is_number(entry.get(name)) for name in numbers):
                found.append(entry)
    return found


def _is_number(value: object) -> bool:
    """Return whether a value is a number that a float holds."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= LARGEST)


def failure_reason(error: BaseException) -> str:
    """Give the reason of a failure in one line."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or (str(error).strip().splitlines() or [type(error).__name__])[0]
