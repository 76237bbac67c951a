"""T5X's files: a msgpack tree whose larger leaves are zarr folders next to it, or an Orbax folder.

`layout` knows which of the encoder's parameters a tensor holds; `tensors` finds what is stored by
its dotted name, not yet read.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
from flax import serialization, traverse_util

from imagen_jax import limits
from imagen_jax.config.sentences import join_texts, shorten
from imagen_jax.io import buckets, json_reader, paths
from imagen_jax.text.checkpoints import remote_folders, zarr_limits
from imagen_jax.text.checkpoints.lazy_tensors import Layout, LazyTensor, Parameter
from imagen_jax.text.checkpoints.remote_folders import RemoteFolder
from imagen_jax.text.checkpoints.zarr_arrays import copy_array, open_array

AGAIN = "save it again with T5X"
VERSIONS = (2, 3)  # version 2 stored bfloat16 as the bits of uint16
FLOATS = ("float32", "bfloat16", "float16", "float64")
TREE = "checkpoint"  # the msgpack file of the classic layout
STATE, DATABASE = "state", "manifest.ocdbt"  # of the Orbax layout
TARGET = "target."  # how the names of parameters begin on disk
WIDTH = 4  # bytes of an element, for an array that is not open yet
COPIES = 3  # of a chunk while it is read: as it is stored, unpacked, and on its way
STACK = "encoder.encoder."  # prefix of tensors whose axis 1 runs over the layers (`scan_layers`)
ENCODER = ("encoder.", "token_embedder.")  # not the decoder, and no optimiser's slots


def layout(path: Path | str) -> tuple[str, Layout]:
    """Find a T5X checkpoint and the encoder's parameters in it; nothing large is read.

    `path` and errors: as `tensors`; ValueError for a stack without layers.
    """
    where, found = tensors(path, prefixes=ENCODER)
    return where, [(stored, tuple(_parameters(stored))) for stored in found.values()]


def _parameters(stored: LazyTensor) -> Iterator[Parameter]:
    """Yield a parameter of the same name, or one for each layer of a stack."""
    if not stored.name.startswith(STACK):
        yield _joined_heads(stored.name, stored.shape, lambda array: array)
        return
    if len(stored.shape) < 2:
        raise ValueError(
            f"{stored.name} in {stored.where} has shape {stored.shape}, without an axis 1 for the "
            "layers"
        )
    limits.NETWORK_BLOCKS.check(stored.shape[1], f"{stored.name} in {stored.where} states")
    shape = (stored.shape[0], *stored.shape[2:])
    for index in range(stored.shape[1]):
        name = f"encoder.layers_{index}.{stored.name.removeprefix(STACK)}"
        yield _joined_heads(name, shape, functools.partial(_layer, index=index))


def _layer(array: np.ndarray, *, index: int) -> np.ndarray:
    return array[:, index]


def _joined_heads(
    name: str, shape: tuple[int, ...], view: Callable[[np.ndarray], np.ndarray]
) -> Parameter:
    """Attention kernels as matrices, heads major; T5X's scalable network keeps them rank 3."""
    if ".attention." not in name or len(shape) != 3:
        return Parameter(name, shape, view)
    joins_rows = ".out." in name
    flat = (math.prod(shape[:2]), shape[2]) if joins_rows else (shape[0], math.prod(shape[1:]))
    return Parameter(name, flat, lambda array: view(array).reshape(flat))


def tensors(path: Path | str, *, prefixes: tuple[str, ...]) -> tuple[str, dict[str, LazyTensor]]:
    """Find a checkpoint, and those of its parameters whose dotted names begin so.

    `path` is a checkpoint's folder, a parent holding exactly one, or a file with all inlined; local
    or `gs://`.
    Errors: FileNotFoundError if there is none; ValueError for several, or a tree that is cut short,
    of another version or of something else.
    """
    path = paths.path_or_address(path)
    if not buckets.is_bucket(path) and Path(path).is_file():
        return _classic(RemoteFolder.from_path(path).parent, Path(path).name, prefixes)
    folder = RemoteFolder.from_path(path)
    names = folder.names()
    if not names and not folder.exists():
        raise FileNotFoundError(f"no T5X checkpoint at {path}: there is no such file or folder")
    if TREE in names:
        return _classic(folder, TREE, prefixes)
    if DATABASE in names or any(name.startswith(TARGET) for name in names):
        return _orbax(folder, prefixes)
    if STATE in names:
        return _orbax(folder / STATE, prefixes)
    found = sorted(n for n in names if n.startswith("checkpoint_") and ".tmp-" not in n)
    if not found:
        raise FileNotFoundError(
            f"no T5X checkpoint in {path}: expected a file `{TREE}`, a folder `{STATE}` or one "
            "folder checkpoint_N"
        )
    if len(found) > 1:
        raise ValueError(
            f"{path} holds several checkpoints ({join_texts(found)}): name the folder of one"
        )
    return tensors((folder / found[0]).url, prefixes=prefixes)


def _classic(
    folder: RemoteFolder, name: str, prefixes: tuple[str, ...]
) -> tuple[str, dict[str, LazyTensor]]:
    where = str(folder / name)
    version, target = _read_tree(folder, name)
    found = traverse_util.flatten_dict(target, is_leaf=lambda _, node: _is_spec(node))
    if other := [part for path in found for part in path if not isinstance(part, str)]:
        raise ValueError(f"{where} has the name {shorten(other[0])}, which is no text: {AGAIN}")
    leaves = {".".join(path): leaf for path, leaf in found.items()}
    limits.TENSORS.check(len(leaves), f"{where} has")
    return where, {
        dotted: _leaf(dotted, leaf, folder=folder, where=where, version=version)
        for dotted, leaf in leaves.items()
        if dotted.startswith(prefixes)
    }


def _read_tree(folder: RemoteFolder, name: str) -> tuple[int, Mapping[str, Any]]:
    """Format version and parameter tree (`optimizer/target`) of a msgpack file."""
    file = folder / name
    content = folder.read(name, limits.TREE_BYTES)
    if content is None:
        raise FileNotFoundError(f"no T5X checkpoint at {file}: there is no such file")
    try:
        tree = serialization.msgpack_restore(content)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(
            f"{file} ({len(content)} bytes) is cut short or no msgpack file: copy it again"
        ) from error
    if not isinstance(tree, Mapping) or "version" not in tree:
        raise ValueError(f"{file} states no version, so it is no T5X checkpoint: save it with T5X")
    if tree["version"] not in VERSIONS:
        raise ValueError(
            f"{file} is of version {shorten(tree['version'])}; versions {VERSIONS[0]} to "
            f"{VERSIONS[-1]} can be read: save it again with a newer T5X"
        )
    optimizer = tree.get("optimizer")
    target = optimizer.get("target") if isinstance(optimizer, Mapping) else None
    if not isinstance(target, Mapping):
        raise ValueError(f"{file} has no parameters at optimizer/target: save it again with T5X")
    return tree["version"], target


def _is_spec(node: Any) -> bool:
    """Return whether a node of the tree says where an array lies, as TensorStore is asked."""
    return (
        isinstance(node, Mapping)
        and {"driver", "kvstore", "metadata"} <= set(node)
        and isinstance(node["kvstore"], Mapping)
        and isinstance(node["metadata"], Mapping)
    )


def _leaf(name: str, leaf: Any, *, folder: RemoteFolder, where: str, version: int) -> LazyTensor:
    """A leaf of the tree: inlined, or the zarr folder that it names."""
    as_float = functools.partial(_as_float, name, version=version)
    if _is_spec(leaf):
        place = _zarr_folder(name, leaf, folder)
        if "shape" in leaf["metadata"]:
            zarr_limits.check_array(leaf, f"{name} in {where}")
        shape = tuple(leaf["metadata"].get("shape") or ())
        chunk = math.prod(leaf["metadata"].get("chunks") or shape)
        size = WIDTH * (math.prod(shape) + COPIES * chunk)
        read = functools.partial(_read_zarr, name, place, leaf)
        return LazyTensor(name, shape, str(place), lambda: as_float(read(), where=place), size)
    if isinstance(leaf, np.ndarray | np.generic):
        array = np.asarray(leaf)
        return LazyTensor(name, array.shape, where, lambda: as_float(array, where=where), 0)
    raise ValueError(f"{name} in {where} is {shorten(leaf)}, not an array: {AGAIN}")


def _zarr_folder(name: str, spec: Mapping[str, Any], folder: RemoteFolder) -> RemoteFolder:
    # Stored drivers and paths point to where the checkpoint was written (a bucket, say); only the
    # last component of the path is ours. Before TensorStore 0.1.14 it stood outside `kvstore`.
    written = spec["kvstore"].get("path") or spec.get("path", "")
    if not isinstance(written, str):
        raise ValueError(f"{name} in {folder} has the path {shorten(written)}, which is no text")
    place = folder / PurePosixPath(written).name
    if not written or not (place.is_remote or place.exists()):
        raise FileNotFoundError(f"{name}: its folder {place} is missing: copy it there")
    place.check_files()
    return place


def _read_zarr(name: str, place: RemoteFolder, spec: Mapping[str, Any]) -> np.ndarray:
    request: dict[str, Any] = {"driver": "zarr", "kvstore": place.kvstore()}
    metadata = place.read(".zarray")
    described = metadata is not None  # dotfiles get lost in copies; else trust it
    if metadata is not None:
        remedy = "copy the whole folder again"
        json_reader.parse_object(metadata, where=place / ".zarray", remedy=remedy)
    else:
        request |= {"metadata": spec["metadata"], "dtype": spec.get("dtype")}
    store = open_array(name, place, request, assume_metadata=not described)
    array = copy_array(name, place, store)
    stated = tuple(spec["metadata"].get("shape", array.shape))
    if array.shape != stated:
        raise ValueError(
            f"{name} in {place} has shape {array.shape}, but the checkpoint states {stated}: "
            "the folder is of another checkpoint"
        )
    return array


def _orbax(state: RemoteFolder, prefixes: tuple[str, ...]) -> tuple[str, dict[str, LazyTensor]]:
    """The parameters of an Orbax folder: zarr in one OCDBT database, or a folder each."""
    state.check_files()
    kvstore = state.kvstore()
    if state.read(DATABASE) is not None:
        kvstore = {"driver": "ocdbt", "base": kvstore}
        described: list[Sequence[str]] = [
            key.rsplit("/", 1)
            for key in remote_folders.list_keys(kvstore, where=state)
            if "/" in key
        ]
    else:
        described = [
            (name, file)
            for name in state.names()
            if name.startswith(TARGET)
            for file in (state / name).names()
        ]
    drivers = {".zarray": "zarr", "zarr.json": "zarr3"}
    found = {
        name: drivers[file]
        for name, file in described
        if name.startswith(TARGET) and file in drivers
    }
    limits.TENSORS.check(len(found), f"{state} has")
    if not found:
        raise ValueError(f"{state} has no parameters {TARGET}*: it is no checkpoint of T5X")
    return str(state), {
        name.removeprefix(TARGET): _database_entry(name, driver, kvstore, state)
        for name, driver in sorted(found.items())
        if name.removeprefix(TARGET).startswith(prefixes)
    }


def _database_entry(
    name: str, driver: str, kvstore: Mapping[str, Any], state: RemoteFolder
) -> LazyTensor:
    path = f"{kvstore.get('path', '')}{name}/"
    request = {"driver": driver, "kvstore": {**kvstore, "path": path}}
    dotted = name.removeprefix(TARGET)
    store = open_array(dotted, state, request, assume_metadata=False)

    def read() -> np.ndarray:
        array = copy_array(dotted, state, store)
        return _as_float(dotted, array, version=VERSIONS[-1], where=state)

    width = store.dtype.numpy_dtype.itemsize
    chunk = math.prod(store.chunk_layout.read_chunk.shape)
    return LazyTensor(
        dotted,
        tuple(store.shape),
        str(state),
        read,
        width * (math.prod(store.shape) + COPIES * chunk),
    )


def _as_float(name: str, array: np.ndarray, *, version: int, where: Any) -> np.ndarray:
    """The array; version 2's bits of bfloat16 as such. Errors: ValueError for another dtype."""
    if version == 2 and array.dtype == np.uint16:
        array = array.view(ml_dtypes.bfloat16)
    if array.dtype.name not in FLOATS:
        raise ValueError(f"{name} in {where} is {array.dtype}, not a float: save it again with T5X")
    return array
