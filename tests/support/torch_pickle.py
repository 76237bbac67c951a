"""State dicts as `torch.save` writes them, without torch: a pickle spelled out, in a zip."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def number(value: int) -> bytes:
    """A whole number of 32 bits."""
    return b"J" + struct.pack("<i", value)


def text(value: str) -> bytes:
    """A text."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(values: tuple[int, ...]) -> bytes:
    """A tuple of whole numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: str, *, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    """A view of a storage of float32."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    storage += number(count) + b"tQ"
    view = number(offset) + numbers(shape) + numbers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89}tR"


def state_dict(tensors: Mapping[str, bytes]) -> bytes:
    """A pickle of tensors by name."""
    items = b"".join(text(name) + data for name, data in tensors.items())
    return b"\x80\x02}(" + items + b"u."


def write_zip(path: Path, data: bytes, members: Mapping[str, bytes]) -> Path:
    """A file of PyTorch's newer form."""
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("archive/data.pkl", data)
        for name, content in members.items():
            opened.writestr(f"archive/{name}", content)
    return path


def save(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """A file of float32 tensors in C order."""
    described, members = {}, {}
    for key, (name, array) in enumerate(tensors.items()):
        strides = tuple(step // array.itemsize for step in array.strides)
        described[name] = tensor(str(key), count=array.size, shape=array.shape, strides=strides)
        members[f"data/{key}"] = array.astype("<f4").tobytes()
    return write_zip(path, state_dict(described), members)
