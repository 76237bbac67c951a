"""A folder of captioned images: `name.txt` next to each `name.jpg`, or a table of captions.

A table is `metadata.jsonl`, `.csv` or `.parquet`, with the column `file_name` and one of text, as
Hugging Face's ImageFolder has it; it is for its folder and those below. No path leads out of the
folder, which may lie in a bucket, but the links of a snapshot in the Hub's cache.
"""

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

from imagen_jax.data.sources import base, tables
from imagen_jax.data.sources.base import (
    IMAGE_SUFFIXES,
    MAX_IMAGE_BYTES,
    MAX_TEXT_BYTES,
    BadCaptionError,
    SkipLog,
    SkippedNames,
)
from imagen_jax.io import buckets, paths, whole_files
from imagen_jax.io.errors import CorruptDataError

NO_CAPTION, LINK_OUT = "image without caption", "link out of the folder"
COPY = "; links out of the folder are not followed: copy their files (cp -rL), or name theirs"
LONGEST_PATH = 3500  # bytes; the system takes 4,096
SIDECARS = frozenset({"txt", "json", "parquet", "csv", "jsonl"})  # of which none is a lost image


@dataclass(frozen=True, eq=False)
class Folder:
    """The images of a folder and of those below it: of tables in their order, then sorted."""

    root: str  # absolute, or gs://
    names: Sequence[str]  # of the images, below the root
    captions: Sequence[tuple[str, ...]]  # of the first images; those of the others are in .txt
    skipped: Mapping[str, SkippedNames]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """The example at an index.

        Errors: BadCaptionError where its .txt has no Unicode text; OSError where its files are
        gone.
        """
        number = self._checked(index)
        name = self.names[number]
        image = self._read(name)
        if number < len(self.captions):
            return base.make_example(image, self.captions[number])
        words = f"{name.rpartition('.')[0]}.txt"
        captions = base.make_texts(self._read(words))
        if not captions:
            raise BadCaptionError(NO_CAPTION, f"{words} is blank")
        return base.make_example(image, captions)

    def key(self, index: int) -> str:
        """The image's path below the folder, fit to print."""
        return base.key(self.names[self._checked(index)])

    def _read(self, name: str) -> bytes:
        """Errors: CorruptDataError for a file that has become too large; OSError."""
        try:
            return whole_files.read_whole(f"{self.root}/{name}")
        except ValueError as error:
            raise CorruptDataError(str(error)) from error

    def _checked(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"example {number} of {len(self)}")
        return number


@dataclass
class Listing:
    """The files below a folder that may be read: sizes by path."""

    sizes: dict[str, int] = field(default_factory=dict)
    skips: SkipLog = field(default_factory=SkipLog)


def open_folder(folder: str, *, column: str = "") -> Folder:
    """The examples of a folder; `column` of its tables has the texts, default `text`.

    Errors: FileNotFoundError for no folder; ValueError for a bucket without its driver, for a table
    without those columns, for a column without a table, and when no example is there.
    """
    root, listing = _list(folder)
    described = _tables(listing)
    if not described and column:
        raise ValueError(
            f"folder {folder} has no table for text={column}: "
            f"add {', '.join(tables.FILES[:-1])} or {tables.FILES[-1]}"
        )
    images = [name for name in sorted(listing.sizes) if _is_image(name, listing)]
    found: dict[str, tuple[str, ...]] = {}
    for below, table in list(described.items()):
        part = _Part(below, {name for name in images if name.startswith(below)}, SkipLog())
        try:
            found |= _tabled(f"{root}/{table}", column or "text", part)
        except ValueError as error:
            if not below:
                raise
            listing.skips.add("table that is none of captions", str(error))
            del described[below]
        else:
            listing.skips.extend(part.skips.collect())
    rest = [name for name in images if not name.startswith(tuple(described))]
    pairs = _pairs(rest, listing, tuple(described))
    skipped = listing.skips.collect()
    if not found and not pairs:
        raise ValueError(
            f"folder {folder} has no image with a caption; "
            f"left out: {base.summarise_skips(skipped) or 'nothing'}"
            + (COPY if LINK_OUT in skipped else "")
        )
    return Folder(root, [*found, *pairs], list(found.values()), skipped)


def _list(folder: str) -> tuple[str, Listing]:
    """The absolute path or the address of a folder, and its files. Errors: as `open_folder`."""
    if buckets.is_bucket(folder):
        buckets.require_driver(folder)
        root = folder.rstrip("/")
        listing = list_bucket(root)
        if not listing.sizes:
            raise FileNotFoundError(f"no files below {folder}")
        return root, listing
    path = Path(os.path.realpath(paths.local_path(folder)))
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    return str(path), list_folder(path)


def _tables(listing: Listing) -> dict[str, str]:
    """Tables by the folder that they are for, "" or `train/`; of several the uppermost counts."""
    found: dict[str, str] = {}
    named = [name for name in listing.sizes if name.rpartition("/")[2] in tables.FILES]
    order = {file: rank for rank, file in enumerate(tables.FILES)}
    for name in sorted(named, key=lambda n: (n.count("/"), order[n.rpartition("/")[2]], n)):
        below = name[: name.rfind("/") + 1]
        if below.startswith(tuple(found)):
            listing.skips.add("further table", name)
        else:
            found[below] = name
    return dict(sorted(found.items()))


def list_folder(root: Path) -> Listing:
    """Walk a folder. Links are followed to files inside of it, and to nothing else.

    A snapshot of the Hub's cache has links alone, to the blobs next to the snapshots.
    """
    listing, todo = Listing(), [""]
    snapshots = next((p for p in (root, *root.parents) if p.name == "snapshots"), None)
    inside = [root] if snapshots is None else [root, snapshots.with_name("blobs")]
    while todo:
        below = todo.pop()
        with os.scandir(root / below) as entries:
            for entry in entries:
                name = below + entry.name
                if entry.name.startswith("."):
                    listing.skips.add("hidden", name)
                elif len(os.fsencode(entry.path)) > LONGEST_PATH:
                    listing.skips.add("path that is too long", name)
                elif entry.is_dir(follow_symlinks=False):
                    todo.append(f"{name}/")
                elif wrong := _refused(inside, entry):
                    listing.skips.add(wrong, name)
                else:
                    listing.sizes[name] = entry.stat().st_size
    return listing


def list_bucket(root: str) -> Listing:
    """List the files of a bucket below a prefix; it has neither links nor devices."""
    listing = Listing()
    for found in buckets.list_below(root):
        name = found.path.removeprefix(f"{root}/")
        if any(part.startswith(".") for part in name.split("/")):
            listing.skips.add("hidden", name)
        elif not name.endswith("/"):
            listing.sizes[name] = found.size
    return listing


def _refused(inside: Iterable[Path], entry: os.DirEntry[str]) -> str:
    """Give the reason why something that is no folder is not read; "" if it is."""
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))  # `resolve` raises for a circle of links
        if not any(target.is_relative_to(folder) for folder in inside):
            return LINK_OUT
        if not target.is_file():
            return "link to no file"
    return "" if entry.is_file() else "no regular file"


def _is_image(name: str, listing: Listing) -> bool:
    """Return whether a file is an image to read; a file of unknown kind is noted."""
    _, dot, ending = name.rpartition("/")[2].rpartition(".")
    if not dot or ending.lower() not in IMAGE_SUFFIXES:
        if ending.lower() not in SIDECARS:
            listing.skips.add("neither image nor caption", name)
        return False
    size = listing.sizes[name]
    if not size or size > MAX_IMAGE_BYTES:
        listing.skips.add("too large" if size else "empty", name)
        return False
    return True


def _pairs(images: Iterable[str], listing: Listing, described: tuple[str, ...]) -> dict[str, None]:
    """Find the images that have a .txt, but in the folders `described`."""
    found: dict[str, None] = {}
    stems = set[str]()
    for name in images:
        stem = name.rpartition(".")[0]
        size = listing.sizes.get(f"{stem}.txt")
        if stem in stems:
            listing.skips.add("duplicate key", name)
        elif size is None:
            listing.skips.add(NO_CAPTION, name)
        elif not size or size > MAX_TEXT_BYTES:
            listing.skips.add("too large" if size else "empty", f"{stem}.txt")
        else:
            found[name] = None
        stems.add(stem)
    for name in sorted(listing.sizes):
        lone = name.endswith(".txt") and name.removesuffix(".txt") not in stems
        if lone and not name.startswith(described):
            listing.skips.add("caption without image", name)
    return found


class _Part(NamedTuple):
    """The folder that a table describes, and its images."""

    below: str  # "", or a folder: `train/`
    images: set[str]
    skips: SkipLog


def _tabled(table: str, column: str, part: _Part) -> dict[str, tuple[str, ...]]:
    """Captions by image; rows of one image are several captions.

    Errors: ValueError as `tables.read_table`.
    """
    found: dict[str, tuple[str, ...]] = {}
    several: dict[str, dict[str, None]] = {}
    for given, captions in tables.read_table(table, column, part.skips):
        parts = given.replace("\\", "/").split("/")
        name = part.below + "/".join(one for one in parts if one not in ("", "."))
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            part.skips.add("unsafe name", given)
        elif name not in part.images:
            part.skips.add("caption without image", name)
        elif not captions:
            part.skips.add(NO_CAPTION, name)
        elif max(map(len, captions)) > MAX_TEXT_BYTES:
            part.skips.add("too large", f"caption of {name}")
        elif name not in found:
            found[name] = captions
        else:
            all_of_it = several.setdefault(name, dict.fromkeys(found[name]))
            before = len(all_of_it)
            all_of_it.update(dict.fromkeys(captions))
            if len(all_of_it) == before:
                part.skips.add("duplicate row", name)
    for name in sorted(part.images - set(found)):
        part.skips.add("image without row", name)
    return found | {name: tuple(captions) for name, captions in several.items()}
