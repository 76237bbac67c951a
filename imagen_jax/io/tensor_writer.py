"""A safetensors file written once from its beginning to its end, with the digest of all its bytes.

A file is the header's length in eight bytes, a JSON header and the tensors without gaps.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imagen_jax.io.tensor_stream import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 8  # bytes; the data begin at a multiple of it


@dataclass(frozen=True)
class Kind:
    """Shape and dtype of a tensor to write."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """The bytes that it takes in memory and in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def file_order(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """The same tensors as a file has them: wider dtypes first, so that all are aligned; by name."""
    return dict(sorted(kinds.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))


def header(kinds: Mapping[str, Kind], *, metadata: Mapping[str, str]) -> bytes:
    """A file's bytes before its tensors, which follow in the order of `kinds`."""
    fields: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, kind in kinds.items():
        start, end = end, end + kind.bytes
        fields[name] = {
            "dtype": NAMES[kind.dtype],
            "shape": kind.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write_tensors(
    file: Path,
    kinds: Mapping[str, Kind],
    arrays: Iterable[np.ndarray],
    *,
    metadata: Mapping[str, str],
    report: Callable[[int], object] = lambda _: None,
) -> str:
    """Write tensors in the order of `kinds`, each when `arrays` gives it; the file's SHA-256.

    No more than two are kept: one is digested, by another thread, while the next is prepared.
    `report` is told the bytes of each that is written. Arrays are of the dtypes of `kinds`, in any
    memory order.
    Errors: ValueError that names a tensor whose values are not all finite; OSError.
    """
    with ThreadPoolExecutor(1) as pool, file.open("wb") as opened:
        writer = _Writer(opened, pool)
        writer.write(header(kinds, metadata=metadata))
        for (name, kind), array in zip(kinds.items(), arrays, strict=True):
            assert array.shape == kind.shape, name
            assert array.dtype == kind.dtype, name
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has values that are not finite: download the file again")
            # In native order a bfloat16 array has no buffer that a file takes; its bytes have.
            writer.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            report(kind.bytes)
        return writer.digest()


class _Writer:
    """Writes bytes and digests them meanwhile."""

    def __init__(self, file: BinaryIO, pool: ThreadPoolExecutor) -> None:
        self._file, self._pool, self._sha256 = file, pool, hashlib.sha256()
        self._hashed: Future[None] | None = None

    def write(self, data: bytes | memoryview) -> None:
        if self._hashed is not None:
            self._hashed.result()  # no more than one tensor waits
        self._hashed = self._pool.submit(self._sha256.update, data)
        self._file.write(data)

    def digest(self) -> str:
        if self._hashed is not None:
            self._hashed.result()
        return self._sha256.hexdigest()
