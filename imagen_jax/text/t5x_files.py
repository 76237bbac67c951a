"""T5X's classic files: a msgpack tree whose larger leaves are zarr folders beside it.

Nothing here knows T5: `locate` finds the files, `read_tree` the leaves, `read_leaf` their arrays.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import tensorstore
from flax import serialization, traverse_util

VERSIONS = (2, 3)  # version 2 stored bfloat16 as the bits of uint16


def locate(path: Path | str) -> Path:
    """The msgpack file of a checkpoint: `path` is it, its folder, or a parent with one checkpoint.

    Errors: FileNotFoundError if there is none; ValueError if there are several or another layout.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no T5X checkpoint at {path}: there is no such file or folder")
    if path.is_file():
        return path
    if (path / "checkpoint").is_file():
        return path / "checkpoint"
    _refuse_other_layouts(path)
    found = [p for p in sorted(path.glob("checkpoint_*")) if ".tmp-" not in p.name]
    if not found:
        raise FileNotFoundError(
            f"no T5X checkpoint in {path}: expected a file `checkpoint` or one folder checkpoint_N"
        )
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise ValueError(f"{path} holds several checkpoints ({names}): name the folder of one")
    return locate(found[0])


def _refuse_other_layouts(path: Path) -> None:
    if (path / "_CHECKPOINT_METADATA").exists() or (path / "state").is_dir():
        raise ValueError(
            f"{path} is an Orbax checkpoint, which cannot be read yet: "
            "use T5X's classic layout, a folder with a file named `checkpoint`"
        )
    if any(path.glob("*.safetensors")) or any(path.glob("pytorch_model*.bin")):
        raise ValueError(
            f"{path} is a Hugging Face checkpoint, which cannot be read yet: "
            "use T5X's classic layout, a folder with a file named `checkpoint`"
        )


def read_tree(file: Path) -> tuple[int, Mapping[str, Any]]:
    """Format version and parameter tree (`optimizer/target`) of a msgpack file.

    Errors: ValueError if the file is cut short, no T5X checkpoint, or of a version not in VERSIONS.
    """
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        size = file.stat().st_size
        raise ValueError(
            f"{file} ({size} bytes) is cut short or no msgpack file: copy it again"
        ) from error
    if not isinstance(tree, Mapping) or "version" not in tree:
        raise ValueError(f"{file} states no version, so it is no T5X checkpoint: save it with T5X")
    if tree["version"] not in VERSIONS:
        raise ValueError(
            f"{file} is of version {tree['version']}; versions {VERSIONS[0]} to {VERSIONS[-1]} "
            "can be read: save it again with a newer T5X"
        )
    optimizer = tree.get("optimizer")
    target = optimizer.get("target") if isinstance(optimizer, Mapping) else None
    if not isinstance(target, Mapping):
        raise ValueError(f"{file} has no parameters at optimizer/target: save it again with T5X")
    return tree["version"], target


def leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by dotted name; a TensorStore spec is a leaf although it is a dict."""
    return traverse_util.flatten_dict(tree, is_leaf=lambda _, node: _is_spec(node), sep=".")


def read_leaf(name: str, leaf: Any, *, file: Path, version: int) -> np.ndarray:
    """A leaf as float32: inlined in the msgpack file, or the zarr folder that it names.

    Errors: FileNotFoundError or ValueError naming the tensor and where it should have been.
    """
    if isinstance(leaf, Mapping):
        array, where = _read_zarr(name, leaf, file.parent)
    elif isinstance(leaf, np.ndarray | np.generic):
        array, where = np.asarray(leaf), file
    else:
        raise ValueError(f"{name} in {file} is {leaf!r}, not an array: save it again with T5X")
    if version == 2 and array.dtype == np.uint16:
        array = array.view(ml_dtypes.bfloat16)
    if array.dtype.name not in ("float32", "bfloat16", "float16", "float64"):
        raise ValueError(f"{name} in {where} is {array.dtype}, not a float: save it again with T5X")
    return np.asarray(array, np.float32)


def _is_spec(node: Any) -> bool:
    return isinstance(node, Mapping) and {"driver", "kvstore", "metadata"} <= set(node)


def _read_zarr(name: str, spec: Mapping[str, Any], folder: Path) -> tuple[np.ndarray, Path]:
    # Stored drivers and paths point to where the checkpoint was written (a bucket, say); only the
    # last component of the path is ours. Before TensorStore 0.1.14 it stood outside `kvstore`.
    written = spec["kvstore"].get("path") or spec.get("path", "")
    where = folder.resolve() / PurePosixPath(written).name
    if not written or not where.is_dir():
        raise FileNotFoundError(f"{name}: its folder {where} is missing: copy it there")
    kvstore = {"driver": "file", "path": f"{where}/"}
    request = {"driver": "zarr", "kvstore": kvstore, "fill_missing_data_reads": False}
    described = (where / ".zarray").is_file()  # dotfiles get lost in copies; trust it where it is
    if not described:
        request |= {"metadata": spec["metadata"], "dtype": spec.get("dtype")}
    try:
        store = tensorstore.open(request, open=True, assume_metadata=not described).result()
        array = store.read().result()
    except (ValueError, KeyError, OSError) as error:
        hint = "a chunk or its metadata is missing or damaged: copy the whole folder again"
        raise ValueError(f"{name} cannot be read from {where}: {hint} ({error})") from error
    stated = tuple(spec["metadata"].get("shape", array.shape))
    if array.shape != stated:
        raise ValueError(
            f"{name} in {where} has shape {array.shape}, but the checkpoint states {stated}: "
            "the folder is of another checkpoint"
        )
    return array, where
