"""Copies on this machine of a store's files in a bucket, made block by block, and bounded in size.

A copy is a sparse file: blocks that were not fetched take no room. `blocks` next to the copies has
a byte for each block, set once all of it is written, so that a process that is killed leaves
nothing that is taken for data. Processes share the copies; so do later runs.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import mmap
import os
import shutil
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from imagen_jax.config.decode import decode
from imagen_jax.io import buckets, json_reader, removal
from imagen_jax.io.atomic import make_subfolder, refuse_link, write_atomic
from imagen_jax.io.buckets import BucketObject

BLOCK = 8 << 20  # bytes that are fetched at once ahead of need
PAGE = 4096  # bytes; a file takes a whole number of them
FOLDER = Path("~/.cache/imagen_jax/pairs")
SIZE = 50 << 30  # bytes: half of the disk that a TPU VM has unless asked for another
ABOUT, BLOCKS, USED = "store.json", "blocks", "used"  # USED: locked by readers


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """The place and the size of what is kept on this machine of stores in buckets."""

    folder: Path = FOLDER
    size: int = SIZE  # most bytes on disk, those of other stores included


class BlockCache:
    """Copies of files, in a folder of `open_cache`; threads share it, worker processes copy it."""

    def __init__(self, folder: Path, files: Sequence[BucketObject]) -> None:
        self.folder, self._files = folder, tuple(files)
        counts = [-(-file.size // BLOCK) for file in files]
        self._first = [0, *itertools.accumulate(counts)]  # block of each file, then their number
        used = _locked(folder / USED, fcntl.LOCK_SH)
        assert used is not None  # it was waited for
        weakref.finalize(self, used.close)  # until then nobody removes the copies
        self._map = _mapped(folder / BLOCKS, self._first[-1])
        self._whole = [False] * len(files)
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[Path, tuple[BucketObject, ...]]]:
        return BlockCache, (self.folder, self._files)

    def describe(self) -> str:
        """Say where copies are, and how much of them is there."""
        size = sum(file.size for file in self._files)
        there = min(sum(self._map[:]) * BLOCK, size)
        return f"through copies in {self.folder}, which have {there:,} of its {size:,} bytes"

    def path(self, number: int) -> Path:
        """Return the copy of a file, at its full length."""
        path = self.folder / Path(self._files[number].path).name
        with self._opening:
            if not path.exists():
                with open(path, "ab", opener=refuse_link) as file:
                    file.truncate(self._files[number].size)
        return path

    def has(self, number: int, start: int, stop: int) -> bool:
        """Return whether all blocks of a range of a file are there."""
        first = self._first[number]
        return all(self._map[first + start // BLOCK : first + -(-stop // BLOCK)])

    def has_all(self, number: int) -> bool:
        """Return whether a file's copy is complete."""
        if not self._whole[number]:
            self._whole[number] = self.has(number, 0, self._files[number].size)
        return self._whole[number]

    def missing_blocks(self) -> Iterator[int]:
        """List the blocks that are not there when their turn comes, in the files' order."""
        return (block for block in range(self._first[-1]) if not self._map[block])

    def fetch_block(self, block: int) -> None:
        """Fetch a block, which is there from then on."""
        number = next(n for n, first in enumerate(self._first[1:]) if block < first)
        file, start = self._files[number], (block - self._first[number]) * BLOCK
        self.put(number, start, buckets.read_range(file, start, min(start + BLOCK, file.size)))
        self._map[block] = 1

    def try_filling(self) -> BinaryIO | None:
        """Return a lock to hold while filling the cache; None where another process does."""
        return _locked(self.folder / "filling", fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_complete(self) -> bool:
        """Return whether all copies are complete."""
        return all(map(self.has_all, range(len(self._files))))

    def put(self, number: int, start: int, data: bytes) -> None:
        """Write a part of a file's copy; no block counts as there for it. Errors: OSError."""
        path = self.path(number)
        try:
            with open(path, "r+b", buffering=0, opener=refuse_link) as file:
                written = os.pwrite(file.fileno(), data, start)
        except OSError as error:
            raise OSError(_full(path, str(error.strerror))) from error
        if written != len(data):
            raise OSError(_full(path, f"{written} of {len(data)} bytes were taken"))

    def note_opened(self, number: int) -> None:
        """Do nothing: a copy's path stays."""

    def drop(self, number: int, start: int, stop: int) -> None:
        """Do nothing: what was put stays."""


def _full(path: Path, reason: str) -> str:
    return (
        f"{path} was not written ({reason}): make room there, or give another --cache-dir or a "
        "smaller --cache-size, then the same command again, which resumes"
    )


def open_cache(settings: CacheSettings, files: Sequence[BucketObject]) -> BlockCache | str:
    """Make room for copies of all files, or give the reason why there is none.

    Copies of other stores go for it, those that were not used for the longest time first, but none
    that is in use.
    """
    root, need = settings.folder.expanduser(), _room(files)
    if need > settings.size:
        return f"its {need:,} bytes are more than --cache-size {settings.size:,}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / _key(files)
    lock = _locked(root / "lock", fcntl.LOCK_EX)
    assert lock is not None  # it was waited for
    try:
        others = [path for path in root.iterdir() if path.is_dir() and path != folder]
        others.sort(key=lambda path: (path / USED).stat().st_mtime if (path / USED).exists() else 0)
        taken = {path: _reserved(path) for path in others}
        for path in others:
            if sum(taken.values()) + need > settings.size and _removed(path):
                del taken[path]
        if sum(taken.values()) + need > settings.size:
            return f"other stores in {root}, which are in use, leave too little room"
        if (lacks := need - _on_disk(folder)) > (free := shutil.disk_usage(root).free):
            return f"{root} has {free:,} bytes free, and {lacks:,} are needed"
        make_subfolder(root, folder.name)
        write_atomic(folder / ABOUT, json.dumps({"bytes": need, "files": [f.path for f in files]}))
        (folder / USED).touch()
        return BlockCache(folder, files)
    finally:
        lock.close()


def _key(files: Sequence[BucketObject]) -> str:
    """A name that another version of a file changes."""
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:32]


def _room(files: Sequence[BucketObject]) -> int:
    """Bytes that copies take on disk at most, with what is next to them."""
    names = sum(len(file.path) + 8 for file in files)
    blocks = sum(-(-file.size // BLOCK) for file in files)
    pages = sum(-(-file.size // PAGE) for file in files) + -(-names // PAGE) + -(-blocks // PAGE)
    return PAGE * (pages + 8 + len(files) // 16)  # with the entries of the folder


def _reserved(folder: Path) -> int:
    """Bytes that copies may come to take, by their note; those on disk where it is damaged."""
    with contextlib.suppress(ValueError, OSError):
        note = json_reader.read_object(folder / ABOUT, remedy="delete it")
        return decode(int, note.get("bytes"), "bytes")
    return _on_disk(folder)


def _on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*"))


def _removed(folder: Path) -> bool:
    """Remove copies unless somebody reads them."""
    lock = _locked(folder / USED, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is None:
        return False
    with lock:
        removal.remove_folder(folder)
    return True


def _locked(path: Path, how: int) -> BinaryIO | None:
    """A file that is locked until it is closed; None where `how` does not wait and it is taken."""
    file = open(path, "ab", opener=refuse_link)  # noqa: SIM115 - it holds the lock
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        file.close()
        return None
    return file


def _mapped(path: Path, size: int) -> mmap.mmap:
    with open(path, "a+b", opener=refuse_link) as file:
        if os.fstat(file.fileno()).st_size != size:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)
