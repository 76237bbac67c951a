"""Parquet files of captioned images, as Hugging Face stores datasets, by random access.

The unit that can be read is a row group: reads in random order decode one for each example, unless
it is among the last few of that thread.
"""

import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from tqdm import tqdm

from imagen_jax import extras
from imagen_jax.data.sources import base, parquet_process
from imagen_jax.data.sources.base import SkipLog, SkippedNames
from imagen_jax.io import buckets, remote_files
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.remote_files import SourceFile

THREADS = 16  # that read captions when a source is opened, but here no more than there are cores
KEPT_GROUPS = 4  # row groups that a thread keeps, at most, and
KEPT_BYTES = 1 << 26  # their bytes; one is kept always


class Columns(NamedTuple):
    """The columns of an example."""

    image: str  # a column of bytes, or of structs {bytes, path}
    text: str  # a column of texts, of lists of them, or a path in one of structs; "": no captions


class Scanned(NamedTuple):
    """The facts known of a file once it was opened."""

    groups: list[int]  # rows of each row group
    whole: np.ndarray  # (rows,) bool, those with an image and a caption
    skipped: Mapping[str, SkippedNames]


class Cache(threading.local):
    """Row groups of one thread, the one that was used last at the end."""

    def __init__(self) -> None:
        self.groups: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Cache, ()


@dataclass(frozen=True, eq=False)
class Parquet:
    """The rows of several files that have an image and a caption, in order."""

    files: tuple[SourceFile, ...]
    columns: Columns
    groups: np.ndarray  # (g, 3): file, number in it, and first row, counted over all files
    firsts: np.ndarray  # first row of each file
    rows: np.ndarray  # (n,): those that are examples
    skipped: Mapping[str, SkippedNames]
    cache: Cache = field(default_factory=Cache)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """The example at an index. Errors: CorruptDataError where its row group cannot be read."""
        row = self._row(operator.index(index))
        number, group, first = self.groups[self.groups[:, 2].searchsorted(row, "right") - 1]
        table = self._group(int(number), int(group))
        if row - int(first) >= table.num_rows:
            path = self.files[number].path
            raise CorruptDataError(f"{path}: row group {group} has only {table.num_rows} rows")
        image = table.column(0)[row - int(first)].as_py()
        if isinstance(image, dict):
            image = image["bytes"]
        if not self.columns.text:
            return base.make_example(image, ())
        words = table.column(1)[row - int(first)].as_py()  # texts are bytes here, not yet checked
        return base.make_example(image, base.make_texts(words, self.columns.text.partition("/")[2]))

    def key(self, index: int) -> str:
        """`train-00000-of-00002.parquet/12`: the file and the row in it."""
        row = self._row(index)
        number = int(self.firsts.searchsorted(row, "right")) - 1
        return f"{base.key(self.files[number].name)}/{row - int(self.firsts[number])}"

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return int(self.rows[index])

    def _group(self, number: int, group: int) -> Any:
        """A row group's two columns."""
        path, kept = self.files[number].path, self.cache.groups
        if (path, group) in kept:
            kept.move_to_end((path, group))
            return kept[path, group]
        try:
            table = _read(self.files[number], group, self.columns)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the bytes
            raise CorruptDataError(f"{path}: row group {group}: {error}") from error
        while kept and (
            len(kept) >= KEPT_GROUPS or table.nbytes + _bytes(kept.values()) > KEPT_BYTES
        ):
            kept.popitem(last=False)
        kept[path, group] = table
        return table


def open_parquet(pattern: str, *, image: str = "image", text: str = "text") -> Parquet:
    """The examples of files: one, a folder of them, or several as in `remote_files.find_files`.

    All captions are read once, to know which rows have one; with an empty `text` images need none.
    Errors: FileNotFoundError where there are no files; ValueError for one without those columns or
    with others in them, when no example is there, and without pyarrow.
    """
    _need_pyarrow(pattern)
    files = tuple(remote_files.find_files(pattern, ending="parquet"))
    columns = Columns(image, text)
    local = not buckets.is_bucket(pattern)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1) if local else THREADS) as pool:
        found = pool.map(partial(_scan, columns=columns), files)
        scanned = list(tqdm(found, "reading captions", len(files), unit=" files", disable=None))
    skips = SkipLog()
    for one in scanned:
        skips.extend(one.skipped)
    rows = np.flatnonzero(np.concatenate([one.whole for one in scanned]))
    if not len(rows):
        raise ValueError(
            f"{pattern}: no image with a caption in {len(files)} files; "
            f"left out: {base.summarise_skips(skips.collect()) or 'nothing'}"
        )
    firsts = np.cumsum([0, *(len(one.whole) for one in scanned[:-1])])
    groups = [
        (number, group, first)
        for number, one in enumerate(scanned)
        for group, first in enumerate(firsts[number] + np.cumsum([0, *one.groups[:-1]]))
        if one.groups
    ]
    return Parquet(files, columns, np.array(groups), firsts, rows, skips.collect())


def row_index(path: str, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a table, texts as bytes; columns that are not wanted are None.

    Errors: ValueError without pyarrow, or when it is no table.
    """
    _need_pyarrow(path)
    try:
        messages = parquet_process.ask("rows", path, wanted=list(wanted))
        others = dict.fromkeys(next(messages))
        for table in messages:
            names = table.column_names
            for values in zip(*(column.to_pylist() for column in table.columns), strict=True):
                yield others | dict(zip(names, values, strict=True))
    except CorruptDataError as error:
        raise ValueError(f"{path} is damaged ({error}): write it again") from error


def _need_pyarrow(place: str) -> None:
    extras.require("pyarrow", f"{place}: Parquet needs")


def _read(file: SourceFile, group: int, columns: Columns) -> Any:
    (table,) = parquet_process.ask("group", file.path, group=group, **columns._asdict())
    return table


def _scan(file: SourceFile, columns: Columns) -> Scanned:
    """Find the rows with image and caption. Errors: ValueError for columns that do not fit."""
    try:
        (found,) = parquet_process.ask("scan", file.path, name=file.name, **columns._asdict())
    except CorruptDataError as error:
        skips = SkipLog()
        skips.add("damaged file", f"{file.name}: {error}")
        return Scanned([], np.zeros(0, bool), skips.collect())
    whole = np.ones(sum(found["groups"]), bool)
    whole[found["lost"]] = False
    skipped = {reason: SkippedNames(n, total) for reason, (total, *n) in found["skipped"].items()}
    return Scanned(found["groups"], whole, skipped)


def _bytes(tables: Any) -> int:
    return sum(table.nbytes for table in tables)
