"""Prompts of a benchmark as its own files have them, with their categories.

| file | prompts |
|---|---|
| `.txt` | a line each |
| `.csv`, `.tsv` | a column of a table, such as DrawBench's and PartiPrompts' |
| `.jsonl` | a field of each line, such as GenEval's |
| `.json` | texts, or objects with such a field; or MS-COCO's captions, some of each image |
| folder of `.txt` | a file each, such as DPG-Bench's |
"""

import collections
import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax import config
from imagen_jax.io import json_reader, text_files

PROMPT_COLUMNS = ("prompt", "prompts", "caption", "text")  # in small letters, the first one counts
CATEGORY_COLUMNS = ("category", "tag")
FORMS = "give a .txt, .csv, .tsv, .json or .jsonl file, or a folder of .txt files"


@dataclass(frozen=True)
class PromptColumns:
    """PromptColumns of a table, or fields of an object, of any case; "" for the usual ones."""

    prompt: str = ""
    category: str = ""


@dataclass(frozen=True)
class PromptSet:
    """Prompts in their order; what a file does not have is empty, else there is one a prompt."""

    prompts: tuple[str, ...]
    sha256: str  # of the file, or of the files of a folder
    categories: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # of the file that each stands in
    records: tuple[str, ...] = ()  # JSON of each, as it stands in the file
    images: tuple[int, ...] = ()  # MS-COCO's number of the image that each describes

    def __len__(self) -> int:
        return len(self.prompts)

    def digest(self) -> str:
        """Return the SHA-256 of the prompts themselves, in their order."""
        found = hashlib.sha256()
        for prompt in self.prompts:
            found.update(prompt.encode("utf-8", "surrogateescape") + b"\0")
        return found.hexdigest()

    def draw(self, count: int | None, *, seed: int) -> "PromptSet":
        """Draw so many prompts, in the order that they have; of an image's captions, one.

        Without a count all are drawn, but for an image's other captions.
        Errors: ValueError for more than there are.
        """
        draw = np.random.default_rng(seed)
        chosen = list(range(len(self)))
        if self.images:
            groups: dict[int, list[int]] = {}
            for number, image in enumerate(self.images):
                groups.setdefault(image, []).append(number)
            chosen = [groups[i][draw.integers(len(groups[i]))] for i in sorted(groups)]
        if count is not None and count > len(chosen):
            of = "images with captions" if self.images else "prompts"
            raise ValueError(f"--images {count:,} is more than the {len(chosen):,} {of}: give less")
        if count is not None and count < len(chosen):
            chosen = [chosen[i] for i in np.sort(draw.permutation(len(chosen))[:count])]
        return self._at(chosen)

    def _at(self, chosen: Sequence[int]) -> "PromptSet":
        def at(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in chosen) if values else ()

        return PromptSet(
            at(self.prompts),
            self.sha256,
            at(self.categories),
            at(self.names),
            at(self.records),
            at(self.images),
        )


def read_prompts(path: Path, columns: PromptColumns = PromptColumns()) -> PromptSet:
    """Read a file or a folder of prompts.

    Errors: FileNotFoundError; ValueError for a file of another form, without those columns or
    without prompts, that names the line; OSError.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise FileNotFoundError(f"no file of prompts at {path}: {FORMS}")
    readers = {".txt": _text, ".csv": _csv, ".tsv": _tsv, ".json": _json, ".jsonl": _jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: no prompts are read from {path.suffix or 'such'} files: {FORMS}")
    text = text_files.read_text(path)
    found = reader(path, text, columns)
    if not found.prompts:
        raise ValueError(f"{path} has no prompt: {FORMS}")
    config.check_texts(found.prompts, what=f"{path}: prompt")
    return found


def _text(path: Path, text: str, columns: PromptColumns) -> PromptSet:
    _refuse_columns(path, columns)
    lines = text.removesuffix("\n").split("\n") if text else []
    return PromptSet(tuple(lines), _digest(text))


def _csv(path: Path, text: str, columns: PromptColumns) -> PromptSet:
    return _table(path, text, columns, csv.reader(io.StringIO(text, newline=""), strict=True))


def _tsv(path: Path, text: str, columns: PromptColumns) -> PromptSet:
    lines = io.StringIO(text, newline="")
    # Spreadsheets write tabs without quoting: a quote is the prompt's own.
    return _table(path, text, columns, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def _table(path: Path, text: str, columns: PromptColumns, reader: Any) -> PromptSet:
    rows: list[tuple[str, dict[str, str]]] = []
    header: list[str] = []
    try:
        for fields in reader:
            where = f"{path}, line {reader.line_num}"
            if not header:
                header = fields
                _check_header(where, header)
            elif len(fields) == len(header):
                rows.append((where, dict(zip(header, fields, strict=True))))
            elif fields:
                raise ValueError(f"{where} has {len(fields)} fields, the header {len(header)}")
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}: correct the quotes") from error
    return _of_rows(rows, _digest(text), columns)


def _check_header(where: str, header: Sequence[str]) -> None:
    """Errors: ValueError for two columns of one name, of which one would be lost."""
    counts = collections.Counter(name.strip().lower() for name in header)
    twice = [name for name, count in counts.items() if name and count > 1]
    if twice:
        raise ValueError(f"{where} has the column {config.shorten(twice[0])} twice: rename one")


def _jsonl(path: Path, text: str, columns: PromptColumns) -> PromptSet:
    lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1)]
    written = [(where, line) for where, line in lines if line.strip()]
    remedy = "give one object a line"
    rows = [
        (where, json_reader.parse_object(line, where=where, remedy=remedy))
        for where, line in written
    ]
    return _of_rows(rows, _digest(text), columns, records=[line for _, line in written])


def _json(path: Path, text: str, columns: PromptColumns) -> PromptSet:
    found = json_reader.parse_json(text, where=path, remedy="give JSON")
    if isinstance(found, dict) and isinstance(found.get("annotations"), list):
        _refuse_columns(path, columns)
        return _coco(path, text, found["annotations"])
    if not isinstance(found, list):
        raise ValueError(f"{path} is no list of prompts, and has no MS-COCO annotations")
    if all(isinstance(one, str) for one in found):
        _refuse_columns(path, columns)
        return PromptSet(tuple(found), _digest(text))
    rows = [(f"{path}, entry {number}", one) for number, one in enumerate(found, 1)]
    for where, one in rows:
        if not isinstance(one, dict):
            raise ValueError(f"{where} is no object, as others are: give texts, or objects")
    return _of_rows(rows, _digest(text), columns)


def _coco(path: Path, text: str, annotations: Sequence[Any]) -> PromptSet:
    """The captions of captions_val2014.json and its like, in the order of images and captions."""
    found = []
    for number, one in enumerate(annotations, 1):
        kinds = {"image_id": int, "id": int, "caption": str}
        if not (isinstance(one, dict) and all(type(one.get(k)) is t for k, t in kinds.items())):
            raise ValueError(
                f"{path}, annotation {number} has no caption, id and image_id: give MS-COCO's "
                "captions, such as captions_val2014.json"
            )
        found.append((one["image_id"], one["id"], one["caption"].strip()))
    found.sort()
    prompts = tuple(" ".join(caption.split()) for _, _, caption in found)
    return PromptSet(prompts, _digest(text), images=tuple(image for image, _, _ in found))


def _folder(path: Path) -> PromptSet:
    """The files of a folder by their names, those that are numbers as numbers."""
    files = [f for f in path.iterdir() if f.suffix == ".txt" and not f.name.startswith(".")]
    if not files:
        raise ValueError(f"{path} has no .txt file: {FORMS}")
    files.sort(key=lambda f: (not f.stem.isdecimal(), int(f.stem) if f.stem.isdecimal() else 0, f))
    texts = [text_files.read_text(file) for file in files]
    names = tuple(file.stem for file in files)
    prompts = tuple(" ".join(text.split()) for text in texts)
    for file, prompt in zip(files, prompts, strict=True):
        config.require(bool(prompt), f"{file} has no prompt: write one, or remove the file")
    return PromptSet(prompts, _digest("\0".join([*names, *texts])), names=names)


def _of_rows(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    sha256: str,
    columns: PromptColumns,
    records: Sequence[str] = (),
) -> PromptSet:
    """The columns of rows; all have a category, or none has."""
    prompts = [_field(*row, columns.prompt, PROMPT_COLUMNS) for row in rows]
    wanted = bool(columns.category)
    categories = [_field(*row, columns.category, CATEGORY_COLUMNS, wanted) for row in rows]
    for (where, _), prompt, category in zip(rows, prompts, categories, strict=True):
        config.require(bool(prompt), f"{where} has no prompt: write one, or remove it")
        if bool(category) != bool(categories[0]):
            raise ValueError(f"{where} has {'a' if category else 'no'} category, others differ")
    whole = tuple(categories) if any(categories) else ()
    return PromptSet(tuple(prompts), sha256, whole, records=tuple(records))


def _field(
    where: str, row: Mapping[str, Any], name: str, usual: Sequence[str], wanted: bool = True
) -> str:
    """A row's text in a column, "" for none that is not wanted."""
    for column in _matching(row, [name.lower()] if name else usual):
        value = row[column]
        if not isinstance(value, str):
            raise ValueError(f"{where}: {column} is {config.shorten(value)}, and no text")
        return value.strip()
    if not wanted:
        return ""
    raise ValueError(
        f"{where} has no column {name or ' or '.join(usual)}, but {', '.join(map(str, row))}: "
        "name it with --prompt-column or --category-column"
    )


def _matching(row: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    by_name = {column.strip().lower(): column for column in row}
    return (by_name[name] for name in names if name in by_name)


def _refuse_columns(path: Path, columns: PromptColumns) -> None:
    for option, value in vars(columns).items():
        config.require(not value, f"--{option}-column {value}: {path} has no columns: leave it out")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
