"""The files of checkpoints, looked at before Orbax and TensorStore open any.

Both read metadata whole, and wait for somebody to fill a pipe. Links are followed, as people keep
large files so.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import tensorstore

from imagen_jax import limits
from imagen_jax.io import buckets, json_reader, key_lists, zarr_dtype
from imagen_jax.io.workdir import Workdir

DEEPEST = 16  # folders in each other in a checkpoint, which has five
TREE, MANIFEST = "_METADATA", "manifest.ocdbt"  # of a state
# What is read whole; the rest is in a folder `d`, or is a chunk of an array.
METADATA = (
    *("_CHECKPOINT_METADATA", "_ROOT_METADATA", TREE, "_sharding", "metadata"),
    *(MANIFEST, ".zarray", "zarr.json", "commit_success.txt"),
)
ARRAYS = "array_metadatas"  # a folder of more of them


def check_steps(folder: Path) -> None:
    """Look at what lies in the folder of all checkpoints, and directly in each of them.

    Errors: ValueError as `check_checkpoint`.
    """
    for name in _check(folder):
        _check(folder / name)


def check_checkpoint(folder: Path) -> None:
    """Look at all files of one checkpoint.

    Errors: ValueError for what is neither a file nor a folder, for metadata of more bytes than
    `limits.FILE_BYTES`, and for folders that lie too deep.
    """
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"{place} lies more than {DEEPEST} folders deep")
        waiting += [(place / name, depth + 1) for name in _check(place)]


def _check(folder: Path) -> list[str]:
    """Check the files of a folder, and name its subfolders."""
    folders = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # who trains has deleted it
            about = os.stat(folder / name)
            if stat.S_ISDIR(about.st_mode):
                folders.append(name)
            elif not stat.S_ISREG(about.st_mode):
                raise ValueError(f"{folder / name} is no file, but a pipe or a device")
            elif name in METADATA or folder.name == ARRAYS:
                limits.FILE_BYTES.check(about.st_size, f"{folder / name} has")
    return folders


def check_arrays(item: Workdir) -> None:
    """Look at the metadata of a state's arrays, of which TensorStore opens each.

    Errors: ValueError for more arrays than `limits.TENSORS`, for what is no JSON, and for a dtype
    that no weights have.
    """
    base: dict[str, Any] = {"driver": "file", "path": f"{item}/"}
    if not isinstance(item, Path):
        bucket, path = buckets.split_address(str(item))
        base = {"driver": "gcs", "bucket": bucket, "path": f"{path}/"}
    is_database = (item / MANIFEST).exists()
    store = tensorstore.KvStore.open(
        {"driver": "ocdbt", "base": base} if is_database else base
    ).result()
    names = [
        key for key in key_lists.list_keys(store) if key.endswith((b"/.zarray", b"/zarr.json"))
    ]
    limits.TENSORS.check(len(names), f"{item} has")
    for name in names:
        where = name.decode(errors="backslashreplace")
        fields = json_reader.parse_object(
            key_lists.read_key(store, name).value, where=where, remedy="put it back from a copy"
        )
        zarr_dtype.check_dtype(fields.get("dtype", fields.get("data_type")), where)


def check_tree(item: Path) -> None:
    """Count the arrays that a state's own list has. Errors: ValueError as `check_arrays`."""
    with contextlib.suppress(FileNotFoundError):  # of an older Orbax, which Orbax knows
        fields = json_reader.read_object(item / TREE, remedy="put it back from a copy")
        listed = fields.get("tree_metadata")
        limits.TENSORS.check(len(listed) if isinstance(listed, dict) else 0, f"{item / TREE} has")
