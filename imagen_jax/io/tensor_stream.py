"""A safetensors file read once from its beginning to its end, with the digest of all its bytes.

A file is the header's length in eight bytes, a JSON header and the tensors without gaps.
"""

import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from imagen_jax.config.decode import decode
from imagen_jax.config.sentences import shorten
from imagen_jax.io import json_reader, whole_files

DTYPES = {  # by safetensors' names
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I8": np.dtype(np.int8),
}
ABOUT = "__metadata__"  # the entry of a header that is no tensor
AGAIN = "copy, download or export it again"


class Entry(NamedTuple):
    """A tensor as a header describes it."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, ...]  # of its first byte and behind its last, after the header


class TensorStream:
    """One pass over a file; another thread digests what has been read."""

    def __init__(self, path: Path) -> None:
        """Read the header. Errors: OSError; ValueError for a file that is no whole one of ours."""
        self._path, self._sha256 = path, hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._hashed: Future[None] | None = None
        self._file = whole_files.open_file(path)
        try:
            self._entries = self._read_header()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "TensorStream":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names and arrays, as they are stored, in the file's order. Errors: OSError, ValueError.

        An array's memory is not to be written to.
        """
        for name, entry in self._entries.items():
            data = self._take(entry.data_offsets[1] - entry.data_offsets[0])
            yield name, np.frombuffer(data, DTYPES[entry.dtype]).reshape(entry.shape)

    def digest(self) -> str:
        """Return the SHA-256 of all bytes, after the last tensor. Errors: ValueError for more."""
        if self._file.read(1):
            raise self._damage("it has bytes behind its last tensor")
        if self._hashed is not None:
            self._hashed.result()
        return self._sha256.hexdigest()

    def _take(self, count: int) -> bytes:
        """Read the next bytes, which are digested while the caller works."""
        data = self._file.read(count)
        if len(data) != count:
            raise self._damage("it is cut short")
        if self._hashed is not None:
            self._hashed.result()  # no more than one tensor waits
        self._hashed = self._pool.submit(self._sha256.update, data)
        return data

    def _read_header(self) -> dict[str, Entry]:
        length = int.from_bytes(self._take(8), "little")
        if length > json_reader.MAX_BYTES:
            raise self._damage(f"its header would have {length:,} bytes")
        fields = json_reader.parse_object(self._take(length), where=self._path, remedy=AGAIN)
        named = {
            name: decode(Entry, facts, f"{self._path}: {shorten(name)}")
            for name, facts in fields.items()
            if name != ABOUT
        }
        entries = dict(sorted(named.items(), key=lambda item: item[1].data_offsets))
        end = 0
        for name, entry in entries.items():
            if entry.dtype not in DTYPES or min(entry.shape, default=0) < 0:
                raise self._damage(
                    f"{shorten(name)} is {shorten(entry.dtype)} {shorten(entry.shape)}"
                )
            start, end = end, end + math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
            if entry.data_offsets != (start, end):
                raise self._damage(f"{shorten(name)} is not behind the tensor before it")
        size = 8 + length + end
        if (found := self._path.stat().st_size) != size:
            raise self._damage(f"it has {found:,} bytes instead of {size:,}")
        return entries

    def _damage(self, reason: str) -> ValueError:
        return ValueError(f"{self._path}: not a whole safetensors file ({reason}); {AGAIN}")
