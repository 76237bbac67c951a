"""Records of shards on this machine: none is compressed, as ours never are.

A few kilobytes that somebody compressed unpack to gigabytes, in the library, before anything else
sees them.
"""

import bisect
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagen_jax import limits
from imagen_jax.data.store import shard_offsets
from imagen_jax.io import whole_files
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.remote_files import RangeReader, SourceFile


class PlainShards:
    """Looks at the beginning of each record before it is read."""

    def __init__(self, files: Sequence[Path], counts: Sequence[int]) -> None:
        self._files, self._counts = tuple(files), tuple(counts)
        self._ends = list(itertools.accumulate(counts))
        self._offsets: dict[int, np.ndarray] = {}
        self._reader = RangeReader()

    def check(self, index: int) -> None:
        """Refuse a record that is compressed. Errors: CorruptDataError; OSError."""
        number = bisect.bisect_right(self._ends, index)
        place = index - (self._ends[number] - self._counts[number])
        file = self._files[number]
        try:
            offsets = self._offsets.get(number)
            if offsets is None:
                offsets = self._offsets[number] = self._read_offsets(file, self._counts[number])
            start = int(offsets[place])
            count = min(int(offsets[place + 1]) - start, shard_offsets.BEGINNING)
            shard_offsets.check_plain(self._reader.read(_about(file), start, count), start)
        except CorruptDataError as error:
            raise CorruptDataError(f"{file} is damaged: {error}") from error

    def _read_offsets(self, file: Path, count: int) -> np.ndarray:
        about = _about(file)
        start = max(about.size - shard_offsets.BLOCK, 0)
        block = self._reader.read(about, start, about.size - start)
        footer = shard_offsets.find_footer(block, size=about.size)
        limits.FILE_BYTES.check(about.size - footer, f"the footer of {file} has")
        data = self._reader.read(about, footer, about.size - footer)
        return shard_offsets.read_offsets(data, start=footer, count=count)


def check_first(file: Path) -> None:
    """Refuse a small file of one record that is compressed.

    Errors: CorruptDataError; OSError; ValueError for a large file.
    """
    data = whole_files.read_whole(file)
    footer = shard_offsets.find_footer(data[-shard_offsets.BLOCK :], size=len(data))
    first, *_ = shard_offsets.read_offsets(data[footer:], start=footer, count=1)
    shard_offsets.check_plain(data[first:], int(first))


def _about(file: Path) -> SourceFile:
    return SourceFile(str(file), file.name, os.stat(file).st_size, "")
