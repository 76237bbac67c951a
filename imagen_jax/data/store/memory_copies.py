"""Sparse copies of a bucket's files in memory that hold one record at a time."""

import mmap
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from imagen_jax.io.buckets import BucketObject

PAGE = mmap.PAGESIZE


class MemoryCopies:
    """Copies as `block_cache.BlockCache` has them, for a store that is larger than its cache.

    ArrayRecord's reader takes nothing but files, and checks the hash of what it reads: a record is
    put where it belongs, read, and dropped. Threads may share it, worker processes may copy it.
    Errors: OSError where the system has no files in memory.
    """

    def __init__(self, files: Sequence[BucketObject], *, reason: str) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError(f"{reason}: give a larger --cache-size, which Linux alone can do without")
        self._files, self._reason = tuple(files), reason  # why they are no BlockCache
        self._maps: dict[int, tuple[int, mmap.mmap]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(MemoryCopies, reason=self._reason), (self._files,)

    def describe(self) -> str:
        """Say where copies are, and why."""
        return f"record by record, which is slow, as {self._reason}: give a larger --cache-size"

    def path(self, number: int) -> str:
        """Return the path at which to open a file's copy, before anything is put there."""
        descriptor = os.memfd_create(f"shard-{number}", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, self._files[number].size)
        self._maps[number] = descriptor, mmap.mmap(descriptor, self._files[number].size)
        return f"/proc/self/fd/{descriptor}"

    def note_opened(self, number: int) -> None:
        """Close the descriptor of a copy whose reader has its own."""
        os.close(self._maps[number][0])

    def has(self, number: int, start: int, stop: int) -> bool:
        """Return False: records are dropped."""
        return False

    def has_all(self, number: int) -> bool:
        """Return False, as `has`."""
        return False

    def is_complete(self) -> bool:
        """Return False, as `has`."""
        return False

    def put(self, number: int, start: int, data: bytes) -> None:
        """Write a part of a file's copy."""
        self._maps[number][1][start : start + len(data)] = data

    def drop(self, number: int, start: int, stop: int) -> None:
        """Free the pages of a part, and with them what is left and right of it in them."""
        size, first = self._files[number].size, start // PAGE * PAGE
        last = min(-(-stop // PAGE) * PAGE, size)
        self._maps[number][1].madvise(mmap.MADV_REMOVE, first, last - first)
