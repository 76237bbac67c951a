"""Safetensors files: the tensors in one, not read yet; and writing one tensor by tensor.

A file is the header's length in eight bytes, a JSON header and the tensors without gaps. Since
shapes and dtypes tell where each begins, tensors can be written in any order, from any thread.
"""

import hashlib
import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax.io import tensor_writer
from imagen_jax.io.safetensors import open_tensors
from imagen_jax.io.tensor_writer import Kind
from imagen_jax.text.checkpoints.lazy_tensors import LazyTensor

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of an element, by safetensors' names
PIECE = 2**20  # elements that are converted and written at a time


@dataclass(frozen=True)
class Slot:
    """The place of a tensor in a file that is being written."""

    name: str
    file: Path
    start: int  # byte of the file
    kind: Kind


def tensor_names(file: Path) -> list[str]:
    """List all tensors of a file, of any dtype. Errors: ValueError for one cut short."""
    with open_tensors(file) as opened:
        return list(opened.keys())


def read_tensors(file: Path, *, only: Collection[str] | None = None) -> dict[str, LazyTensor]:
    """The tensors of a file by their names, or `only` those of the given names.

    Errors: ValueError for a file that is cut short, or a tensor that is no float.
    """
    with open_tensors(file) as opened:
        chosen = [name for name in opened.keys() if only is None or name in only]  # noqa: SIM118
        return {name: _stored(file, name, opened.get_slice(name)) for name in chosen}


def _stored(file: Path, name: str, header: Any) -> LazyTensor:
    shape, dtype = tuple(header.get_shape()), header.get_dtype()
    if dtype not in WIDTHS:
        raise ValueError(
            f"{name} in {file} is {dtype}; {', '.join(WIDTHS)} can be read: take the same weights "
            "in one of these, such as a file with fp16, bf16 or no dtype in its name"
        )

    def read() -> np.ndarray:
        with open_tensors(file) as opened:
            return opened.get_tensor(name)

    return LazyTensor(name, shape, str(file), read, WIDTHS[dtype] * math.prod(shape))


def reserve_file(file: Path, kinds: Mapping[str, Kind], *, metadata: str) -> dict[str, Slot]:
    """Write a file's header, and leave room for its tensors in the order of `kinds`.

    For every tensor to be aligned, wider dtypes have to come first.
    """
    first = tensor_writer.header(kinds, metadata={"format": metadata})
    starts = list(itertools.accumulate((k.bytes for k in kinds.values()), initial=len(first)))
    with file.open("wb") as opened:
        opened.write(first)
        opened.truncate(starts[-1])
    return {
        name: Slot(name, file, start, kind)
        for (name, kind), start in zip(kinds.items(), starts, strict=False)
    }


def fill_tensor(slot: Slot, array: np.ndarray) -> str:
    """Write an array of any float dtype and memory order to its place; SHA-256 of its bytes there.

    Shapes: array as `slot.kind`, at least one axis.
    Errors: ValueError for values that are not finite, or too large for the dtype there.
    """
    digest = hashlib.sha256()
    rows = max(1, PIECE * len(array) // max(1, array.size))
    with slot.file.open("r+b") as opened:
        opened.seek(slot.start)
        for start in range(0, len(array), rows):
            # In native order a bfloat16 array has no buffer that a file takes; its bytes have.
            kept = np.array(array[start : start + rows], slot.kind.dtype, order="C")
            if not np.isfinite(kept).all():
                raise ValueError(
                    f"{slot.name} has values that are not finite as {slot.kind.dtype}: copy or "
                    "download the checkpoint again"
                )
            part = kept.view(np.uint8).data
            digest.update(part)
            opened.write(part)
    return digest.hexdigest()


def sha256(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's bytes, as `fill_tensor` does for it."""
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()
