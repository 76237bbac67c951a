"""Our own form of a text encoder: one folder, which other readers of safetensors open too.

FOLDER/encoder.json has the sizes, the bytes of every other file, and each tensor's file and
SHA-256; FOLDER/weights-00001-of-0000N.safetensors the parameters under T5X's names, matrices
[in, out] as in memory; FOLDER/spiece.model is the tokenizer. Equal weights give equal files,
whatever they were read from.
"""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from imagen_jax import limits
from imagen_jax.config.decode import decode_values
from imagen_jax.config.names import check_name
from imagen_jax.config.sentences import join_texts, shorten
from imagen_jax.io import atomic, json_reader, tensor_writer, whole_files
from imagen_jax.io.paths import path_inside
from imagen_jax.io.tensor_writer import Kind
from imagen_jax.text import t5, t5_storage
from imagen_jax.text.checkpoints import lazy_tensors, safetensors_io
from imagen_jax.text.checkpoints.lazy_tensors import Layout, LazyTensor, Parameter
from imagen_jax.text.checkpoints.safetensors_io import Slot
from imagen_jax.text.t5 import Dtype, T5Config
from imagen_jax.text.tokenizer import Tokenizer

FORMAT, VERSION = "imagen_jax text encoder", 1
DESCRIPTION, TOKENIZER = "encoder.json", "spiece.model"
SHARD = 2 * 2**30  # bytes; no file of several tensors is larger
AGAIN = "copy the folder again, or convert the original again"


@dataclass(frozen=True)
class _Description:
    """The fields of `encoder.json`."""

    sizes: T5Config
    files: Mapping[str, "_FileFacts"]
    tensors: Mapping[str, "_TensorFacts"]


@dataclass(frozen=True)
class _FileFacts:
    bytes: int
    sha256: str | None = None  # None: the tensors have theirs


@dataclass(frozen=True)
class _TensorFacts:
    file: str
    sha256: str


def write(
    folder: Path,
    sizes: T5Config,
    layout: Layout,
    *,
    tokenizer: Tokenizer,
    dtype: Dtype,
    progress: bool = True,
) -> None:
    """Write an encoder that `load.find_layout` found into a new folder.

    It appears complete or not at all. In memory is no more than the largest stored tensor, and a
    piece for each of those that are read side by side.
    With bfloat16 the matrices are rounded; vectors and tables of positions stay float32, as in a
    `TextEncoder` of that dtype.
    Errors: FileExistsError when `folder` exists; ValueError for a tokenizer with more pieces than
    the embedding has rows; OSError where too little of the disk is free.
    """
    folder = folder.absolute()
    if tokenizer.size > sizes.vocab:
        raise ValueError(
            f"the tokenizer has {tokenizer.size} pieces, but the embedding only {sizes.vocab} "
            "rows: they belong to different encoders"
        )
    kinds = _kinds(layout, dtype)
    atomic.check_new(folder, needed=sum(kind.bytes for kind in kinds.values()))
    with atomic.new_folder(folder) as unfinished:
        (unfinished / TOKENIZER).write_bytes(tokenizer.model)
        slots = _reserve(unfinished, kinds)
        digests = _fill(slots, layout, progress=progress)
        described = _describe(unfinished, sizes, dtype, slots=slots, digests=digests)
        (unfinished / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")


def _kinds(layout: Layout, dtype: Dtype) -> dict[str, Kind]:
    """List the tensors to write, in the files' order: wider dtypes first, then by name."""
    kinds = {
        name: Kind(shape, jnp.dtype(t5_storage.storage_dtype(name, shape, dtype)))
        for name, shape in lazy_tensors.parameter_shapes(layout).items()
    }
    return tensor_writer.file_order(kinds)


def _reserve(folder: Path, kinds: Mapping[str, Kind]) -> dict[str, Slot]:
    """Files with room for all tensors; a new one is begun when the last would exceed SHARD."""
    shards: list[dict[str, Kind]] = [{}]
    for name, kind in kinds.items():
        if shards[-1] and sum(k.bytes for k in shards[-1].values()) + kind.bytes > SHARD:
            shards.append({})
        shards[-1][name] = kind
    slots: dict[str, Slot] = {}
    for number, shard in enumerate(shards, 1):
        file = folder / f"weights-{number:05d}-of-{len(shards):05d}.safetensors"
        slots |= safetensors_io.reserve_file(file, shard, metadata=FORMAT)
    return slots


def _fill(slots: Mapping[str, Slot], layout: Layout, *, progress: bool) -> dict[str, str]:
    """Read and write every tensor, several side by side; their SHA-256."""
    total, lock = sum(slot.kind.bytes for slot in slots.values()), threading.Lock()
    with tqdm(total=total, desc="weights", unit="B", unit_scale=True, disable=not progress) as bar:

        def place(name: str, array: np.ndarray) -> str:
            digest = safetensors_io.fill_tensor(slots[name], array)
            with lock:
                bar.update(slots[name].kind.bytes)
            return digest

        return lazy_tensors.read_parameters(layout, place)


def _describe(
    folder: Path,
    sizes: T5Config,
    dtype: Dtype,
    *,
    slots: Mapping[str, Slot],
    digests: Mapping[str, str],
) -> dict[str, Any]:
    weights = sorted({slot.file for slot in slots.values()})
    files: dict[str, Any] = {file.name: {"bytes": file.stat().st_size} for file in weights}
    model = whole_files.read_whole(folder / TOKENIZER)
    files[TOKENIZER] = {"bytes": len(model), "sha256": hashlib.sha256(model).hexdigest()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "dtype": dtype,
        "sizes": dataclasses.asdict(sizes),
        "files": files,
        "tensors": {
            name: {"file": slot.file.name, "sha256": digests[name]} for name, slot in slots.items()
        },
    }


def is_native(folder: Path) -> bool:
    """Return whether a folder holds an encoder that `write` wrote, or remains of one."""
    return folder.is_dir() and any(
        next(folder.glob(pattern), None) for pattern in (DESCRIPTION, "weights-*-of-*.safetensors")
    )


def layout(folder: Path) -> tuple[str, Layout]:
    """Find an encoder and its parameters; nothing large is read.

    Each tensor is compared with its SHA-256 when it is read.
    Errors: FileNotFoundError for a file that is missing; ValueError for one that is cut short, has
    changed or is of another version.
    """
    described = _read_description(folder)
    _check_files(folder, described.files)
    stated = {name: facts.file for name, facts in described.tensors.items()}
    found: dict[str, LazyTensor] = {}
    files: dict[str, str] = {}
    for file in sorted(set(stated.values()) & set(described.files)):
        tensors = safetensors_io.read_tensors(folder / file)
        found |= tensors
        files |= dict.fromkeys(tensors, file)
    shapes = {name: tensor.shape for name, tensor in found.items()}
    expected = t5.parameter_shapes(described.sizes)
    wrong = [
        name
        for name in sorted({*expected, *stated, *found})
        if (expected.get(name), stated.get(name)) != (shapes.get(name), files.get(name))
    ]
    if wrong:
        raise ValueError(f"{folder} has not {join_texts(wrong)} as {DESCRIPTION} says: {AGAIN}")
    return str(folder), [
        (_checked(found[name], facts.sha256), (Parameter(name, shapes[name], lambda x: x),))
        for name, facts in described.tensors.items()
    ]


def _read_description(folder: Path) -> _Description:
    file = folder / DESCRIPTION
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has weights, but lacks {DESCRIPTION}: {AGAIN}")
    found = json_reader.read_object(file, remedy=AGAIN)
    if found.get("format") != FORMAT:
        raise ValueError(f"{file} is no description of a text encoder of ours: {AGAIN}")
    if found.get("version") != VERSION:
        raise ValueError(
            f"{file} is of version {shorten(found.get('version'))}; version {VERSION} can be read: "
            "convert the original again, or use the imagen_jax that wrote it"
        )
    given: dict[str, Any] = {
        name: found[name] for name in ("sizes", "files", "tensors") if name in found
    }
    try:
        described = _Description(**decode_values(_Description, given, "it"))
        for name in (*described.files, *described.tensors):
            check_name(name, "a file's or a tensor's name")
    except ValueError as error:
        raise ValueError(f"{file} is no whole description ({error}): {AGAIN}") from error
    limits.TENSORS.check(len(described.tensors), f"{file} lists")
    _check_sizes(described.sizes, file)
    return described


def _check_sizes(sizes: T5Config, file: Path) -> None:
    """Errors: ValueError for a size of an encoder that is none, or for too many layers."""
    for name, value in dataclasses.asdict(sizes).items():
        if type(value) is int and not 0 < value < 2**31:
            raise ValueError(f"{file} has {name}={value!r}, which is no size: {AGAIN}")
    limits.NETWORK_BLOCKS.check(sizes.layers, f"{file} states")


def _check_files(folder: Path, files: Mapping[str, _FileFacts]) -> None:
    for name in files:
        path_inside(folder, name, by=folder / DESCRIPTION)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {join_texts(missing)}, which {DESCRIPTION} names: {AGAIN}"
        )
    for name, facts in files.items():
        found = (folder / name).stat().st_size
        if found != facts.bytes:
            raise ValueError(f"{folder / name} has {found} bytes instead of {facts.bytes}: {AGAIN}")
        if facts.sha256:
            limits.FILE_BYTES.check(found, f"{folder / name} has")
        if facts.sha256 and _digest(folder / name) != facts.sha256:
            raise ValueError(f"{folder / name} has changed since it was written: {AGAIN}")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _checked(tensor: LazyTensor, digest: str) -> LazyTensor:
    """The same, whose reading refuses other bytes than were written."""

    def read() -> np.ndarray:
        array = tensor.read()
        if safetensors_io.sha256(array) != digest:
            raise ValueError(
                f"{tensor.name} in {tensor.where} has changed since it was written: {AGAIN}"
            )
        return array

    return dataclasses.replace(tensor, read=read)
