"""A folder of captioned pictures: `name.txt` beside each `name.jpg`, or a table of captions.

A table is `metadata.jsonl`, `.csv` or `.parquet` in the folder, with the column `file_name` and one
of text, as Hugging Face's ImageFolder has it. No path leads out of the folder, which may lie in a
bucket.
"""

import csv
import io
import json
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex

from imagen_jax import paths
from imagen_jax.data import examples, places
from imagen_jax.data.examples import LARGEST_PICTURE, LARGEST_TEXT, PICTURES, Names, Skips

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE_NAME = "file_name"
SIDECARS = frozenset({"txt", "json", "parquet", "csv", "jsonl"})  # of which none is a lost picture


@dataclass(frozen=True, eq=False)
class Folder(Sequence):
    """The pictures of a folder and of those below it; of a table in its order, else sorted."""

    root: str  # absolute, or gs://
    names: Sequence[str]  # of the pictures, below the root
    captions: Sequence[tuple[str, ...]] | None  # None: each is in a .txt
    skipped: Mapping[str, Names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """The example at an index. Errors: OSError where its files are gone."""
        name = self.key(operator.index(index))
        image = places.content(f"{self.root}/{name}")
        if self.captions is not None:
            return examples.example(image, self.captions[operator.index(index)])
        words = places.content(f"{self.root}/{name.rpartition('.')[0]}.txt")
        return examples.example(image, examples.texts(words))

    def key(self, index: int) -> str:
        """The picture's path below the folder."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return self.names[index]


@dataclass
class Listing:
    """The files below a folder that may be read: sizes by path."""

    sizes: dict[str, int] = field(default_factory=dict)
    skips: Skips = field(default_factory=Skips)


def open(folder: str, *, column: str = "") -> Folder:
    """The examples of a folder; `column` of its table has the texts, default `text`.

    Errors: FileNotFoundError for no folder; ValueError for a bucket without its driver, for a table
    without those columns, for a column without a table, and when no example is there.
    """
    if folder.startswith(places.BUCKET):
        places.need_driver(folder)
        root = folder.rstrip("/")
        listing = listed_in_bucket(root)
        if not listing.sizes:
            raise FileNotFoundError(f"no files below {folder}")
    else:
        path = paths.local(folder).resolve()
        if not path.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
        root, listing = str(path), listed(path)
    table = next((f"{root}/{name}" for name in TABLES if name in listing.sizes), None)
    if table is None and column:
        raise ValueError(
            f"folder {folder} has no table for text={column}: add {', '.join(TABLES[:-1])} or "
            f"{TABLES[-1]}"
        )
    found = _pairs(listing) if table is None else _tabled(table, column or "text", listing)
    skipped = listing.skips.collected()
    if not found:
        raise ValueError(
            f"folder {folder} has no picture with a caption; "
            f"left out: {examples.summary(skipped) or 'nothing'}"
        )
    captions = None if table is None else list(found.values())
    return Folder(root, list(found), captions, skipped)


def listed(root: Path) -> Listing:
    """Walk a folder. Links are followed to files inside of it, and to nothing else."""
    listing, todo = Listing(), [""]
    while todo:
        below = todo.pop()
        with os.scandir(root / below) as entries:
            for entry in entries:
                name = below + entry.name
                if entry.name.startswith("."):
                    listing.skips.add("hidden", name)
                elif entry.is_dir(follow_symlinks=False):
                    todo.append(f"{name}/")
                elif wrong := _refused(root, entry):
                    listing.skips.add(wrong, name)
                else:
                    listing.sizes[name] = entry.stat().st_size
    return listing


def listed_in_bucket(root: str) -> Listing:
    """What a bucket has below a prefix; it has neither links nor devices."""
    listing = Listing()
    for path, about in places.driver().find(root, detail=True).items():
        name = (places.BUCKET + path).removeprefix(f"{root}/")
        if any(part.startswith(".") for part in name.split("/")):
            listing.skips.add("hidden", name)
        elif about["type"] == "file" and not name.endswith("/"):
            listing.sizes[name] = about["size"]
    return listing


def _refused(root: Path, entry: os.DirEntry[str]) -> str:
    """Why something that is no folder is not read; "" if it is."""
    if entry.is_symlink():
        target = Path(entry.path).resolve()
        if not target.is_relative_to(root):
            return "link out of the folder"
        if not target.is_file():
            return "link to no file"
    return "" if entry.is_file() else "no regular file"


def _picture(name: str, listing: Listing) -> bool:
    """Whether a file is a picture to read; what is neither picture nor known is noted."""
    _, dot, ending = name.rpartition("/")[2].rpartition(".")
    if not dot or ending.lower() not in PICTURES:
        if ending.lower() not in SIDECARS:
            listing.skips.add("neither picture nor caption", name)
        return False
    size = listing.sizes[name]
    if not size or size > LARGEST_PICTURE:
        listing.skips.add("too large" if size else "empty", name)
        return False
    return True


def _pairs(listing: Listing) -> dict[str, None]:
    """Pictures that have a .txt."""
    found, stems = {}, set()
    for name in sorted(listing.sizes):
        if not _picture(name, listing):
            continue
        stem = name.rpartition(".")[0]
        size = listing.sizes.get(f"{stem}.txt")
        if stem in stems:
            listing.skips.add("duplicate key", name)
        elif size is None:
            listing.skips.add("picture without caption", name)
        elif not size or size > LARGEST_TEXT:
            listing.skips.add("too large" if size else "empty", f"{stem}.txt")
        else:
            found[name] = None
        stems.add(stem)
    for name in sorted(listing.sizes):
        if name.endswith(".txt") and name.removesuffix(".txt") not in stems:
            listing.skips.add("caption without picture", name)
    return found


def _tabled(table: str, column: str, listing: Listing) -> dict[str, tuple[str, ...]]:
    """Captions by picture, as a table says. Errors: ValueError for one without its columns."""
    pictures = {name for name in sorted(listing.sizes) if _picture(name, listing)}
    found: dict[str, tuple[str, ...]] = {}
    for row in _rows(table, column, listing.skips):
        name = row[FILE_NAME]
        if not isinstance(name, str) or not name:
            listing.skips.add("row without file_name", repr(name))
            continue
        parts = name.replace("\\", "/").split("/")
        name = "/".join(part for part in parts if part not in ("", "."))
        try:
            captions = examples.texts(row, column)
        except TypeError as error:
            raise ValueError(f"{table}: column {column!r} of {name} is {error}") from error
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            listing.skips.add("unsafe name", row[FILE_NAME])
        elif name in found:
            listing.skips.add("duplicate key", name)
        elif name not in pictures:
            listing.skips.add("caption without picture", name)
        elif not captions:
            listing.skips.add("picture without caption", name)
        elif max(map(len, captions)) > LARGEST_TEXT:
            listing.skips.add("too large", f"caption of {name}")
        else:
            found[name] = captions
    for name in sorted(pictures - set(found)):
        listing.skips.add("picture without row", name)
    return found


def _rows(table: str, column: str, skips: Skips) -> Iterator[Mapping[str, Any]]:
    ending = table.rpartition(".")[2]
    rows = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[ending](table, skips)
    for row in rows:
        for name in (FILE_NAME, column.partition("/")[0]):
            if name not in row:
                raise ValueError(
                    f"{table} has no column {name!r}; it has {', '.join(map(str, row))}"
                    + ("" if name == FILE_NAME else ": name the one of texts with text=")
                )
        yield row


def _text(table: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        places.opened(table), encoding="utf-8-sig", errors="replace", newline=""
    )


def _jsonl(table: str, skips: Skips) -> Iterator[Mapping[str, Any]]:
    with _text(table) as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                row = ()
            if isinstance(row, dict):
                yield row
            elif row is not None:
                skips.add("unreadable row", f"{_name(table)} line {number}")


def _csv(table: str, skips: Skips) -> Iterator[Mapping[str, Any]]:
    with _text(table) as lines:
        reader = csv.reader(lines)
        header = next(reader, [])
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:  # such as an enormous field
                fields = [""]
            if len(fields) == len(header):
                yield dict(zip(header, fields, strict=True))
            elif fields:
                skips.add("unreadable row", f"{_name(table)} line {reader.line_num}")


def _name(table: str) -> str:
    return table.rpartition("/")[2]


def _parquet(table: str, skips: Skips) -> Iterator[Mapping[str, Any]]:
    from imagen_jax.data import parquet

    yield from parquet.rows(table)
