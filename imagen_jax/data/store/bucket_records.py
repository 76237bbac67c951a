"""The bytes of a store's records in a bucket, by index: from copies on this machine, or by ranges.

ArrayRecord's own reader reads them, from sparse copies of the shards, and checks their hashes: what
is not there yet, or is damaged, never passes for a record.
"""

import bisect
import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from jaxtyping import Int64

from imagen_jax.data.store import block_cache, cache_filler, shard_offsets
from imagen_jax.data.store.block_cache import BlockCache, CacheSettings
from imagen_jax.data.store.memory_copies import MemoryCopies
from imagen_jax.data.store.shard_file import CORRUPTED, READER_OPTIONS, ShardFile
from imagen_jax.io import buckets
from imagen_jax.io.buckets import BucketObject
from imagen_jax.io.errors import CorruptDataError

WIDTH = 32  # ranges that are read at once
BUFFER = 32768  # bytes, as ArrayRecordDataSource has it


class OpenShard(NamedTuple):
    """A shard whose end was read."""

    reader: ArrayRecordReader
    offsets: Int64[np.ndarray, " offsets"]  # of its records, and their end
    lock: threading.Lock  # held while a record is put into its copy and read


def open_records(
    folder: str, shards: Sequence[ShardFile], settings: CacheSettings
) -> "BucketRecords":
    """Open a store's records below an address.

    Errors: ValueError where a shard is not the one written; OSError where the bucket refuses.
    """
    there = {file.path.rpartition("/")[2]: file for file in buckets.list_folder(folder)}
    for shard in shards:
        size = there[shard.name].size if shard.name in there else None
        if size != shard.bytes:
            found = "is missing" if size is None else f"has {size} bytes instead of {shard.bytes}"
            raise ValueError(f"{folder} is damaged: {shard.name} {found}; delete it, then encode")
    objects = [there[shard.name] for shard in shards]
    cache = block_cache.open_cache(settings, objects)
    copies = MemoryCopies(objects, reason=cache) if isinstance(cache, str) else cache
    return BucketRecords(shards, objects, copies)


class BucketRecords:
    """Random access to records' bytes; threads may share it, worker processes may copy it."""

    def __init__(
        self,
        shards: Sequence[ShardFile],
        objects: Sequence[BucketObject],
        copies: BlockCache | MemoryCopies,
    ) -> None:
        self._shards, self._objects, self._copies = tuple(shards), tuple(objects), copies
        self._ends = list(itertools.accumulate(shard.count for shard in shards))
        self._open: list[OpenShard | CorruptDataError | None] = [None] * len(shards)
        self._locks = [threading.Lock() for _ in shards]
        self._ahead: dict[int, Future[bytes]] = {}
        self._pool = ThreadPoolExecutor(WIDTH, thread_name_prefix="bucket")
        self._begun = threading.Lock()
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __reduce__(self) -> tuple[type, tuple]:
        return BucketRecords, (self._shards, self._objects, self._copies)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> bytes:
        """A record's bytes.

        Errors: RuntimeError of the file's reader and CorruptDataError where they are damaged;
        OSError where the bucket does not give them.
        """
        self._begin()
        number, place = self._locate(index)
        fetched = self._ahead.pop(index, None)
        shard = self._shard(number)
        if self._is_there(shard, number, place):
            try:
                return self._read_copy(shard, number, place)
            except CorruptDataError:
                pass  # the copy is damaged, or what the bucket has is none of ours
            except RuntimeError as error:
                if not str(error).startswith(CORRUPTED):
                    raise  # otherwise the copy is damaged: the bucket has another
        data = self._fetch(index) if fetched is None else fetched.result()
        start = int(shard.offsets[place])
        with _named(self._objects[number]):
            shard_offsets.check_plain(data, start)
        with shard.lock:
            self._copies.put(number, start, data)
            try:
                return _read(shard, place)
            finally:
                self._copies.drop(number, start, start + len(data))

    def _read_copy(self, shard: OpenShard, number: int, place: int) -> bytes:
        """Errors: CorruptDataError for a record that is compressed; RuntimeError for damage."""
        start, stop = int(shard.offsets[place]), int(shard.offsets[place + 1])
        with open(self._copies.path(number), "rb", buffering=0) as copy:
            beginning = os.pread(copy.fileno(), min(stop - start, shard_offsets.BEGINNING), start)
        shard_offsets.check_plain(beginning, start)
        return _read(shard, place)

    def prefetch(self, indices: Iterable[int]) -> None:
        """Begin to fetch the records that are not there, for the next reads of them."""
        self._begin()
        if self._copies.is_complete():
            return
        for index in indices:
            number, place = self._locate(index)
            shard = self._open[number]
            if index in self._ahead or isinstance(shard, CorruptDataError):
                continue
            if shard is None or not self._is_there(shard, number, place):
                self._ahead[index] = self._pool.submit(self._fetch, index)

    def describe(self) -> str:
        """Say how records are read."""
        place = self._objects[0].path.rpartition("/")[0]
        return f"{place} is read {self._copies.describe()}"

    def _begin(self) -> None:
        """Begin to fill the cache, the first time."""
        if isinstance(self._copies, BlockCache) and self._begun.acquire(blocking=False):
            weakref.finalize(self, cache_filler.fill(self._copies).set)

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the shard of a record, and the record's number in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        return number, index - (self._ends[number] - self._shards[number].count)

    def _is_there(self, shard: OpenShard, number: int, place: int) -> bool:
        if self._copies.has_all(number):
            return True
        return self._copies.has(number, int(shard.offsets[place]), int(shard.offsets[place + 1]))

    def _fetch(self, index: int) -> bytes:
        number, place = self._locate(index)
        offsets = self._shard(number).offsets
        return buckets.read_range(
            self._objects[number], int(offsets[place]), int(offsets[place + 1])
        )

    def _shard(self, number: int) -> OpenShard:
        found = self._open[number]
        if found is None:
            with self._locks[number]:
                found = self._open[number]
                if found is None:
                    try:
                        found = self._opened(number)
                    except CorruptDataError as error:
                        found = error  # of all its records
                    self._open[number] = found
        if isinstance(found, CorruptDataError):
            raise CorruptDataError(str(found))
        return found

    def _opened(self, number: int) -> OpenShard:
        """Open a shard's reader, once its end is there."""
        file, count = self._objects[number], self._shards[number].count
        # Enough for most footers, of 16 bytes a record.
        start = max(file.size - shard_offsets.BLOCK * (3 + 16 * count // shard_offsets.BLOCK), 0)
        path = self._copies.path(number)
        if self._copies.has(number, start, file.size):
            with contextlib.suppress(CorruptDataError), open(path, "rb") as copy:
                copy.seek(start)
                offsets = _offsets(file, count, copy.read())
                return OpenShard(_reader(file, count, path), offsets, threading.Lock())
            # The copy is damaged: the bucket has another.
        tail = _read_end(file, start)
        self._copies.put(number, file.size - len(tail), tail)
        reader, offsets = _reader(file, count, path), _offsets(file, count, tail)
        self._copies.note_opened(number)
        self._copies.drop(number, file.size - len(tail), file.size)
        return OpenShard(reader, offsets, threading.Lock())


def _read_end(file: BucketObject, start: int) -> bytes:
    """Read a file from its footer on, or from `start` if that comes first."""
    tail = buckets.read_range(file, start, file.size)
    with _named(file):
        footer = shard_offsets.find_footer(tail[-shard_offsets.BLOCK :], size=file.size)
    return tail if start <= footer else buckets.read_range(file, footer, start) + tail


def _offsets(file: BucketObject, count: int, tail: bytes) -> Int64[np.ndarray, " offsets"]:
    with _named(file):
        footer = shard_offsets.find_footer(tail[-shard_offsets.BLOCK :], size=file.size)
        of_footer = tail[footer + len(tail) - file.size :]
        return shard_offsets.read_offsets(of_footer, start=footer, count=count)


def _reader(file: BucketObject, count: int, path: object) -> ArrayRecordReader:
    reader = ArrayRecordReader(str(path), READER_OPTIONS, file_reader_buffer_size=BUFFER)
    if not reader.ok() or reader.num_records() != count:
        raise CorruptDataError(f"{file.path} is damaged: its footer is not the one written")
    return reader


@contextlib.contextmanager
def _named(file: BucketObject) -> Iterator[None]:
    try:
        yield
    except CorruptDataError as error:
        raise CorruptDataError(f"{file.path} is damaged: {error}") from error


def _read(shard: OpenShard, place: int) -> bytes:
    return shard.reader.read([place])[0]
