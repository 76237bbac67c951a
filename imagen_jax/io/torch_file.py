"""State dicts that `torch.save` wrote, of either of its forms; nothing in them is executed.

Since PyTorch 1.6 a file is a zip of `data.pkl` and one member for each storage. Before, it was four
pickles (a magic number, a version, the writer's sizes, the state dict), one more with the order of
the storages, and the storages, each behind the number of its elements. pytorch-fid's and
torch-fidelity's Inception is of the older form.
"""

import errno
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from imagen_jax import limits
from imagen_jax.config.sentences import shorten
from imagen_jax.io import restricted_pickle, whole_files, zip_members
from imagen_jax.io.restricted_pickle import Storage, StoredTensor

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the older form
MOST_PICKLED = 1 << 24  # bytes of a file's pickles; a state dict's have 100,000
MOST_SHARED, SPARE = 4, 1 << 20  # times a storage may be a tensor's; bytes of small ones besides
DAMAGE = (  # what a changed zip ends in
    *(ValueError, EOFError, OSError, OverflowError, RuntimeError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)
AGAIN = "download it again, or take a safetensors file of the same weights"


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as they are stored.

    Errors: FileNotFoundError; ValueError for a file that is no state dict, is damaged, or whose
    pickle names anything but tensors.
    """
    try:
        with whole_files.open_file(path) as opened:
            return _read_zip(opened) if zipfile.is_zipfile(opened) else _read_legacy(opened)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a seek to a wrong place
            raise
        raise ValueError(f"{path} is no state dict of PyTorch: {error}; {AGAIN}") from error


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as opened:
        members = zip_members.stored_members(opened, os.fstat(file.fileno()).st_size)
        sizes = {name: info.file_size for name, info in members.items()}
        pickles = [name for name in sizes if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip without one data.pkl")
        (name,) = pickles
        folder = name.removesuffix("data.pkl")
        if any(member.startswith(f"{folder}code/") for member in sizes):
            raise ValueError("it is a TorchScript program, of which nothing is run")
        if sizes[name] > MOST_PICKLED:
            raise ValueError(f"its data.pkl has {sizes[name]:,} bytes")
        if f"{folder}byteorder" in sizes and opened.read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        tensors = _tensors(restricted_pickle.read(io.BytesIO(opened.read(name))))

        def read(storage: Storage) -> bytes:
            member = f"{folder}data/{storage.key}"
            if sizes.get(member) != _bytes(storage):
                raise ValueError(f"its storage {storage.key} has {sizes.get(member)} bytes")
            return opened.read(member)

        return _views(tensors, read)


def _read_legacy(opened: BinaryIO) -> dict[str, np.ndarray]:
    whole = os.fstat(opened.fileno()).st_size
    opened.seek(0)
    stream = io.BytesIO(opened.read(MOST_PICKLED))
    if restricted_pickle.read(stream) != MAGIC or restricted_pickle.read(stream) != VERSION:
        raise ValueError("it does not begin as one")
    system = restricted_pickle.read(stream)
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise ValueError("its numbers are big-endian")
    tensors = _tensors(restricted_pickle.read(stream))
    keys = restricted_pickle.read(stream)
    if not isinstance(keys, list):
        raise ValueError("it has no list of storages")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    opened.seek(stream.tell())
    stored: dict[str, bytes] = {}
    for key in map(str, keys):
        if key not in storages or key in stored:
            raise ValueError(f"its storage {key} is no tensor's")
        count, size = int.from_bytes(opened.read(8), "little"), _bytes(storages[key])
        fits = (
            count == storages[key].elements and size <= whole
        )  # it is allocated before it is read
        data = opened.read(size) if fits else b""
        if len(data) != size:
            raise ValueError(f"its storage {key} has {count:,} elements, and is cut short")
        stored[key] = data
    return _views(tensors, lambda storage: stored[storage.key])


def _tensors(found: Any) -> Mapping[str, StoredTensor]:
    """The tensors of a state dict. Errors: ValueError for anything else."""
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not (isinstance(found, dict) and found):
        raise ValueError("it holds no dictionary of tensors")
    for name, tensor in found.items():
        if not (isinstance(name, str) and isinstance(tensor, StoredTensor)):
            raise ValueError(f"its {shorten(name)} is no tensor")
    return found


def _views(tensors: Mapping[str, StoredTensor], read: Any) -> dict[str, np.ndarray]:
    """Each tensor, copied from its storage."""
    _check_sizes(tensors)
    flat: dict[Storage, np.ndarray] = {}
    found = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage not in flat:
            flat[storage] = np.frombuffer(read(storage), _dtype(storage.dtype))
        steps = zip(tensor.shape, tensor.strides, strict=True)
        reach = tensor.offset + sum((side - 1) * stride for side, stride in steps) + 1
        size = math.prod(tensor.shape)
        if size > storage.elements or (size and reach > storage.elements):
            raise ValueError(f"its {name!r} reaches beyond its storage")
        width = flat[storage].itemsize
        view = np.lib.stride_tricks.as_strided(
            flat[storage][tensor.offset :],
            tensor.shape,
            [stride * width for stride in tensor.strides],
            writeable=False,
        )
        found[name] = view.copy()
    return found


def _check_sizes(tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse very many tensors, and those that all are views of a few storages.

    Errors: ValueError.
    """
    limits.TENSORS.check(len(tensors), "it has")
    stored = sum(map(_bytes, {tensor.storage for tensor in tensors.values()}))
    copied = sum(
        math.prod(tensor.shape) * _dtype(tensor.storage.dtype).itemsize
        for tensor in tensors.values()
    )
    if copied > MOST_SHARED * stored + SPARE:
        raise ValueError(
            f"its tensors have {copied:,} bytes, more than {MOST_SHARED} times those of its "
            f"storages, {stored:,}"
        )


def _bytes(storage: Storage) -> int:
    """The bytes of a storage. Errors: ValueError for more than `limits` allow."""
    size = storage.elements * _dtype(storage.dtype).itemsize
    limits.TENSOR_BYTES.check(size, f"its storage {storage.key} has")
    return size


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else f"<{np.dtype(name).str[1:]}")
