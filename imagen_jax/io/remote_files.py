"""Files that sources read, on this machine or in a bucket (`gs://`): found, and read in ranges."""

import glob
import math
import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from imagen_jax.config.sentences import abridge, shorten
from imagen_jax.io import buckets, paths, whole_files
from imagen_jax.io.buckets import BucketObject
from imagen_jax.io.errors import CorruptDataError

MOST_FILES, DIGITS = 1_000_000, 18  # that braces may stand for, and of their numbers
KEPT_OPEN = 128  # files of one reader; further ones are opened for each read
_WILD = re.compile(r"[*\[{]")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_BRACES = re.compile(r"\{([^{}]*)\}")


class SourceFile(NamedTuple):
    """A file as it was found."""

    path: str  # absolute, or gs://
    name: str  # below the fixed part of the pattern that found it
    size: int
    stamp: str  # another one once the file has changed


def find_files(pattern: str, *, ending: str) -> list[SourceFile]:
    """The files of a pattern, by name: a path, a folder of files with that ending, or with `*`.

    `{00000..00099}` and `{a,b}` stand for several names, each of which has to be there; in names of
    files and folders that are there they stand for themselves, as `*`, `?` and `[` do.
    Errors: FileNotFoundError for a name that is not there, or when there is nothing at all;
    ValueError for a bucket without its driver.
    """
    if not buckets.is_bucket(pattern):
        pattern = os.path.abspath(paths.local_path(pattern))
    pattern = pattern.rstrip("/")
    buckets.require_driver(pattern)
    there = _there(pattern)
    wild = _WILD.search(pattern, len(there))
    fixed = pattern[: wild.start()] if wild else pattern
    found: dict[str, tuple[int, str]] = {}
    for rest in expand_braces(pattern[len(there) :]):
        one, spelled = there + rest, glob.escape(there) + rest
        files = dict(_matches(spelled)) or dict(_matches(f"{spelled}/*.{ending}"))
        if not files and not wild:
            raise FileNotFoundError(f"{one} is neither a file nor a folder with *.{ending} in it")
        if not files and not glob.has_magic(rest):
            raise FileNotFoundError(f"{one} is not there; {pattern} names it")
        found |= files
    if not found:
        raise FileNotFoundError(f"no file matches {pattern}")
    cut = len(fixed) + 1 if fixed not in found and not wild else fixed.rfind("/") + 1
    return [SourceFile(path, path[cut:], *found[path]) for path in sorted(found)]


def _there(pattern: str) -> str:
    """The beginning of a pattern that is a file or a folder as it is spelled; "" in a bucket."""
    if buckets.is_bucket(pattern) or os.path.exists(pattern):
        return "" if buckets.is_bucket(pattern) else pattern
    return _there(os.path.dirname(pattern))


@dataclass(frozen=True)
class _Choices:
    """What a part of a pattern stands for; a range of a million numbers takes no memory."""

    total: int
    spell: Callable[[int], str]  # the name of a number below the total


def expand_braces(pattern: str) -> Iterator[str]:
    """The patterns that one with braces stands for, in order. Errors: ValueError for too many."""
    pieces = _BRACES.split(pattern)  # text, inside of braces, text, ...
    parts = [_choices(p) if n % 2 else _Choices(1, [p].__getitem__) for n, p in enumerate(pieces)]
    count = math.prod(part.total for part in parts)
    if count > MOST_FILES:
        raise ValueError(f"{shorten(pattern)} names more than {MOST_FILES:,} files: give a folder")
    return (_spell(parts, number) for number in range(count))


def _spell(parts: Sequence[_Choices], number: int) -> str:
    """The name of a number, of whose digits each part has one; the last part counts fastest."""
    words = []
    for part in reversed(parts):
        number, digit = divmod(number, part.total)
        words.append(part.spell(digit))
    return "".join(reversed(words))


def _choices(inside: str) -> _Choices:
    """What braces stand for. Errors: ValueError for more than `MOST_FILES`."""
    if numbers := _RANGE.fullmatch(inside):
        first, last = numbers.groups()
        if max(len(first), len(last)) > DIGITS or int(last) - int(first) >= MOST_FILES:
            said = abridge(f"{{{inside}}}", most=80)
            raise ValueError(f"{said} names more than {MOST_FILES:,} files: give a folder")
        begin, width = int(first), len(first)
        return _Choices(
            max(0, int(last) + 1 - begin), lambda number: str(begin + number).zfill(width)
        )
    words = inside.split(",")
    return _Choices(len(words), words.__getitem__)


def _matches(pattern: str) -> Iterator[tuple[str, tuple[int, str]]]:
    """Path, size and stamp of each file that matches."""
    if buckets.is_bucket(pattern):
        yield from ((one.path, (one.size, one.generation)) for one in buckets.glob(pattern))
        return
    for path in _here(pattern):
        if os.path.isfile(path):
            about = os.stat(path)
            yield path, (about.st_size, str(about.st_mtime_ns))


def _here(pattern: str) -> Iterator[str]:
    """The paths of this machine that match. Errors: ValueError for very deep folders."""
    try:
        yield from glob.iglob(pattern, recursive=True)
    except RecursionError as error:
        raise ValueError(
            f"{shorten(pattern)}: the folders there are nested too deep: give one of them"
        ) from error


def open_file(path: str) -> Any:
    """A file of bytes to read through, from its beginning."""
    return buckets.open_object(path) if buckets.is_bucket(path) else whole_files.open_file(path)


class RangeReader:
    """Reads ranges of files; threads may share it, worker processes may copy it."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}  # descriptors by path
        weakref.finalize(self, _close, self._open)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return RangeReader, ()

    def read(self, file: SourceFile, start: int, count: int) -> bytes:
        """`count` bytes from `start` on.

        Errors: CorruptDataError where the file has ended before; else those of the disk or the
        bucket.
        """
        if buckets.is_bucket(file.path):
            found = BucketObject(file.path, file.size, generation=file.stamp)
            data = buckets.read_range(found, start, min(start + count, file.size))
        else:
            data = self._pread(file.path, start, count)
        if len(data) != count:
            raise CorruptDataError(f"{file.path} has changed: it ends before byte {start + count}")
        return data

    def _pread(self, path: str, start: int, count: int) -> bytes:
        descriptor = self._open.get(path)
        if descriptor is not None:
            return os.pread(descriptor, count, start)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Kept until the reader goes: closed earlier, another thread might be reading from it.
        if len(self._open) < KEPT_OPEN and self._open.setdefault(path, descriptor) == descriptor:
            return os.pread(descriptor, count, start)
        try:
            return os.pread(descriptor, count, start)
        finally:
            os.close(descriptor)


def _close(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
