"""Records of a TFDS dataset within bounds: they may be compressed, and hold any number of values.

What a chunk of an ArrayRecord file unpacks to stands in its header, which is looked at before the
file's reader is; Riegeli holds a chunk to it. Of a record only the features that are wanted go to
the parser of protocol buffers, which takes eight bytes and more for one.
Source: github.com/google/riegeli doc/riegeli_records_file_format.md; tensorflow's example.proto.
"""

import bisect
import contextlib
import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int64

from imagen_jax import limits
from imagen_jax.config.sentences import shorten
from imagen_jax.data.sources.base import MAX_IMAGE_BYTES, MAX_TEXT_BYTES
from imagen_jax.data.store import shard_offsets
from imagen_jax.data.store.shard_offsets import BLOCK, BLOCK_HEADER, CHUNK_HEADER
from imagen_jax.io import whole_files
from imagen_jax.io.errors import CorruptDataError

CODECS = {b"z": "zstd", b"b": "brotli", b"s": "snappy"}
MOST_FEATURES = 10_000  # of a record
MOST_IMAGES = 1_000  # of a feature
VARINT, BYTES = 0, 2  # kinds of fields
FIXED = {1: 8, 5: 4}  # bytes of others


class Chunks(NamedTuple):
    """Where the chunks of a file begin, and how many records each has but for the last."""

    offsets: Int64[np.ndarray, " chunks"]
    each: int


class ShardSizes:
    """What the records of one file unpack to; its footer is read when the first is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _chunks(self) -> Chunks:
        with whole_files.open_file(self.path) as opened:
            return _read_chunks(opened, self.path)

    def unpacked_size(self, index: int) -> int:
        """Bytes that reading a record takes: what its chunk unpacks to.

        Errors: ValueError for a damaged file; OSError.
        """
        offsets, each = self._chunks
        if not index < each * len(offsets):
            raise CorruptDataError(f"{self.path.name} has no record {index}")
        offset = int(offsets[index // each])
        with whole_files.open_file(self.path) as opened:
            opened.seek(offset)
            header = shard_offsets.without_headers(opened.read(CHUNK_HEADER + BLOCK_HEADER), offset)
        if len(header) < CHUNK_HEADER or header[24:25] != b"r":
            raise CorruptDataError(f"{self.path.name} has a chunk that is no list of records")
        count, size = (int.from_bytes(header[a:b], "little") for a, b in ((25, 32), (32, 40)))
        # The reader keeps where each record ends.
        return size + 8 * count


class Shards:
    """The files of a split, of which each has its number of records."""

    def __init__(self, files: Sequence[Path], counts: Sequence[int]) -> None:
        self._sizes = [ShardSizes(file) for file in files]
        self._ends = list(itertools.accumulate(counts))

    def unpacked_size(self, index: int) -> int:
        """Bytes that reading a record takes. Errors: as `ShardSizes.unpacked_size`."""
        number = bisect.bisect_right(self._ends, index)
        before = self._ends[number - 1] if number else 0
        return self._sizes[number].unpacked_size(index - before)

    def read(self, records: Any, index: int, where: str) -> bytes:
        """Read a record of TFDS's data source of bytes, within `limits.FILE_BYTES`.

        Errors: as `naming_damage`; `where` names the record.
        """
        with naming_damage(where):
            size = self.unpacked_size(index)
        try:
            limits.FILE_BYTES.check(size, f"{where} lies in a chunk that has, unpacked,")
        except ValueError as error:
            raise CorruptDataError(str(error)) from error
        with naming_damage(where):
            return records[index]


@contextlib.contextmanager
def naming_damage(where: str) -> Iterator[None]:
    """Turn what TFDS, protocol buffers and ArrayRecord say of damaged files into one sentence.

    Their errors have no common kind. Errors: CorruptDataError; OSError and what says that a dataset
    is not there, as they are.
    """
    from tensorflow_datasets.core import registered

    try:
        yield
    except (OSError, registered.DatasetNotFoundError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CorruptDataError(
            f"{where} is damaged ({shorten(reason)}): copy or prepare the dataset again"
        ) from error


def _read_chunks(opened: BinaryIO, path: Path) -> Chunks:
    """Read a file's footer. Errors: CorruptDataError; ValueError as `limits`."""
    size = os.fstat(opened.fileno()).st_size
    opened.seek(max(size - BLOCK, 0))
    start = shard_offsets.find_footer(opened.read(BLOCK), size=size)
    limits.FILE_BYTES.check(size - start, f"the footer of {path} has")
    opened.seek(start)
    chunk = _unpacked(shard_offsets.without_headers(opened.read(size - start), start), path)
    offsets, counts = shard_offsets.read_chunks(chunk)
    each = int(counts[0]) if len(counts) else 1
    if (counts[:-1] != each).any() or (len(counts) and not 0 < counts[-1] <= each):
        raise CorruptDataError(f"the chunks of {path.name} have different numbers of records")
    return Chunks(offsets, each)


def _unpacked(chunk: bytes, path: Path) -> bytes:
    """Unpack a chunk of records into one that is not compressed."""
    codec = CODECS.get(chunk[CHUNK_HEADER : CHUNK_HEADER + 1])
    if codec is None:
        return chunk
    length = int.from_bytes(chunk[8:16], "little")
    data = memoryview(chunk)[CHUNK_HEADER + 1 : CHUNK_HEADER + length]
    packed, begin = _varint(data, 0)
    sizes = _decompressed(data[begin : begin + packed], codec, path)
    values = _decompressed(data[begin + packed :], codec, path)
    plain = b"\0" + _spelled(len(sizes)) + sizes + values
    return chunk[:8] + len(plain).to_bytes(8, "little") + chunk[16:CHUNK_HEADER] + plain


def _decompressed(data: memoryview, codec: str, path: Path) -> bytes:
    import pyarrow  # which TFDS needs

    size, begin = _varint(data, 0)
    limits.FILE_BYTES.check(size, f"the footer of {path} has, unpacked,")
    if not size:
        return b""
    try:
        return pyarrow.Codec(codec).decompress(data[begin:], size, asbytes=True)
    except OSError as error:  # which is no file's
        raise CorruptDataError(f"the footer of {path.name} can't be unpacked: {error}") from error


def keep_features(record: bytes, image: str, texts: Collection[str]) -> bytes:
    """Leave in a record, an Example, the image and texts alone; a text may have parts `text/...`.

    Errors: ValueError for another kind of record, and for one with more bytes or values than an
    image and its texts have.
    """
    kept, size, data = [], 0, memoryview(record)
    for _, begin, end in _fields(data, (0, len(data)), {1}):
        for number, (_, start, stop) in enumerate(_fields(data, (begin, end), {1})):
            if number >= MOST_FEATURES:
                raise ValueError(f"it has more than {MOST_FEATURES:,} features")
            (_, *name), feature = _pair(data, (start, stop))
            key = bytes(data[slice(*name)]).decode(errors="replace")
            if key == image:
                _check_image(data, feature, key)
            elif any(f"{key}/".startswith(f"{text}/") for text in texts):
                size += feature[1] - feature[0]
            else:
                continue
            kept.append(b"\x0a" + _spelled(stop - start) + data[start:stop])
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"its texts have {size:,} bytes, more than {MAX_TEXT_BYTES:,}")
    return b"\x0a" + _spelled(sum(map(len, kept))) + b"".join(kept)


def _pair(data: memoryview, span: tuple[int, int]) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """A name and its feature, as they stand in a map."""
    found = list(_fields(data, span, {1, 2}))
    if [number for number, *_ in found] != [1, 2]:
        raise ValueError("it has a feature that is not a name and a value")
    return found[0], (found[1][1], found[1][2])


def _check_image(data: memoryview, feature: tuple[int, int], key: str) -> None:
    size = feature[1] - feature[0]
    if size > MAX_IMAGE_BYTES:
        raise ValueError(f"{key} has {size:,} bytes, more than {MAX_IMAGE_BYTES:,}")
    for _, begin, end in _fields(data, feature, {1, 2, 3}):
        for number, _ in enumerate(_fields(data, (begin, end), {1})):
            if number >= MOST_IMAGES:
                raise ValueError(f"{key} has more than {MOST_IMAGES:,} values")


def _fields(
    data: memoryview, span: tuple[int, int], wanted: set[int]
) -> Iterator[tuple[int, int, int]]:
    """Numbers of a message's fields, and from where to where their bytes are.

    Errors: ValueError for other fields.
    """
    place, end = span
    while place < end:
        tag, place = _varint(data, place)
        size, place = _varint(data, place)
        if tag >> 3 not in wanted or tag & 7 != BYTES or place + size > end:
            raise ValueError("it is no Example of TensorFlow")
        yield tag >> 3, place, place + size
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends. Errors: ValueError."""
    found = 0
    for length, byte in enumerate(data[place : place + shard_offsets.LONGEST]):
        found |= (byte & 127) << 7 * length
        if byte < 128:
            return found, place + length + 1
    raise ValueError("it ends inside a number, or in one that is too large")


def _spelled(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])
