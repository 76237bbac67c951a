"""The safetensors files of one Hugging Face checkpoint, among those of a folder."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagen_jax.config.names import check_name
from imagen_jax.config.sentences import join_texts
from imagen_jax.io import json_reader
from imagen_jax.io.paths import path_inside
from imagen_jax.text.checkpoints import safetensors_io

STEM = "model"  # of a text encoder's files
FILE, INDEX = f"{STEM}.safetensors", f"{STEM}.safetensors.index.json"
SUFFIX = ".safetensors"
LISTED = 8  # shards in a sentence
MOST_SHARDS = 10_000  # of an index; those of the largest encoder have a thousandth
# model-00001-of-00002.safetensors, model.fp16-00001-of-00002.safetensors and, older,
# model-00001-of-00002.fp16.safetensors
_SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>[0-9]+)-of-(?P<count>[0-9]+)(?P<variant>.*)\.safetensors"
)


def is_huggingface(path: Path) -> bool:
    """Return whether a path is a folder or file of a Hugging Face checkpoint of any format."""
    if path.is_file():
        return path.suffix == SUFFIX
    patterns = ("*.safetensors*", "pytorch_model*.bin*")
    return any(_seen(path, pattern) for pattern in patterns)


def tensor_files(path: Path, *, stem: str = STEM) -> dict[str, Path]:
    """The file of every tensor of a checkpoint, by Hugging Face's name.

    In a folder `STEM.safetensors.index.json` goes first, then `STEM.safetensors`, then the only
    other index; an index counts if its shards are there. Else there has to be one file, or one set
    of shards, that holds a T5.
    Errors: FileNotFoundError for a shard that is missing; ValueError for none, for several, or for
    a file that can't be read.
    """
    if path.is_file():
        return _names([path])
    indices = {index.name: _of_index(index) for index in _seen(path, "*.safetensors.index*.json")}
    whole = {name: files for name, files in indices.items() if not _lost(files)}
    file, index = f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    if index in whole:
        return _names(whole[index])
    if (path / file).is_file():
        return _names([path / file])
    if len(whole) > 1:
        raise _several(path, sorted(whole), (index, file))
    for files in whole.values():
        return _names(files)
    for name, files in indices.items():
        _refuse_lost(files, by=name)
    return _only(path, (index, file))


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file's fields. Errors: ValueError for a file that has none."""
    return json_reader.read_object(file, remedy="download it again")


def _only(folder: Path, first: Sequence[str]) -> dict[str, Path]:
    """The tensors of the only file, or set of shards; of several, of the only one with a T5."""
    sets: dict[str, list[Path]] = {}
    for file in _seen(folder, f"*{SUFFIX}"):
        shard = _SHARD.fullmatch(file.name)
        name = f"{shard['stem']}-*-of-{shard['count']}{shard['variant']}" if shard else file.name
        sets.setdefault(name, []).append(file)
    if not sets:
        pickles = ", ".join(file.name for file in _seen(folder, "*.bin")[:LISTED])
        raise ValueError(
            f"{folder} has no safetensors file{f', but {pickles}' * bool(pickles)}: of Hugging "
            "Face's formats only safetensors can be read, and never a pickle (download it, or save "
            "it with save_pretrained(..., safe_serialization=True))"
        )
    found = {name: _names(files) for name, files in sets.items()}
    if len(found) > 1:
        found = {
            name: x for name, x in found.items() if any("block.0.layer." in n for n in x)
        } or found
    if len(found) > 1:
        raise _several(folder, sorted(found), first)
    ((name, tensors),) = found.items()
    _refuse_incomplete(sets[name])
    return tensors


def _refuse_incomplete(files: Sequence[Path]) -> None:
    """Refuse an incomplete set of shards without an index, as far as their names tell."""
    shard = _SHARD.fullmatch(files[0].name)
    if shard is None:
        return
    number, there = shard["number"], {file.name for file in files}
    names = (
        files[0].name.replace(f"-{number}-of-", f"-{n:0{len(number)}d}-of-")
        for n in range(1, int(shard["count"]) + 1)  # as many as the name of a file claims
    )
    lost = list(itertools.islice((name for name in names if name not in there), LISTED + 1))
    _refuse_lost([files[0].with_name(name) for name in lost], by=files[0].name)


def _refuse_lost(files: Sequence[Path], *, by: str) -> None:
    if lost := _lost(files):
        more = " and others" if len(lost) > LISTED else ""
        raise FileNotFoundError(
            f"{files[0].parent} lacks {', '.join(lost[:LISTED])}{more}, which {by} names: download "
            "them again"
        )


def _lost(files: Sequence[Path]) -> list[str]:
    return [file.name for file in files if not file.is_file()]


def _of_index(index: Path) -> list[Path]:
    """The shards that an index names, there or not."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no weight_map, which names the shards: download it again")
    names = {name for name in weight_map.values() if isinstance(name, str)}
    if len(names) > MOST_SHARDS:
        raise ValueError(
            f"{index} names {len(names):,} shards, more than {MOST_SHARDS:,}: download it again"
        )
    for name in (*names, *(x for x in weight_map.values() if not isinstance(x, str))):
        check_name(name, f"a shard in {index}'s weight_map")
    return [path_inside(index.parent, name, by=index) for name in sorted(names)]


def _names(files: Sequence[Path]) -> dict[str, Path]:
    return {name: file for file in files for name in safetensors_io.tensor_names(file)}


def _seen(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder but hidden ones, such as macOS's `._model.safetensors`."""
    return sorted(f for f in folder.glob(pattern) if f.is_file() and not f.name.startswith("."))


def _several(folder: Path, names: Sequence[str], first: Sequence[str]) -> ValueError:
    return ValueError(
        f"{folder} has several checkpoints ({join_texts(names)}) and none is {' or '.join(first)}: "
        "give one of the files, or keep one in a folder of its own"
    )
