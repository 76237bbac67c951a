"""Parquet files of captioned images, as Hugging Face stores datasets, by random access.

The unit that can be read is a row group: reads in random order decode one for each example, unless
it is among the last few of that thread.
"""

import operator
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
from imagen_jax.data.sources import base
from imagen_jax.data.sources.base import MAX_TEXT_BYTES, BadCaptionError, SkipLog, SkippedNames
from imagen_jax.io import remote_files
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.remote_files import SourceFile

THREADS = 16  # that read captions when a source is opened
KEPT_GROUPS = 4  # row groups that a thread keeps, at most, and
KEPT_BYTES = 1 << 26  # their bytes; one is kept always


class Columns(NamedTuple):
    """The columns of an example."""

    image: str  # a column of bytes, or of structs {bytes, path}
    text: str  # a column of texts, of lists of them, or a path in one of structs


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
class Parquet(Sequence):
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
        image = table.column(0)[row - int(first)].as_py()
        if isinstance(image, dict):
            image = image["bytes"]
        words = table.column(1)[row - int(first)].as_py()  # texts are bytes here: see `_unchecked`
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

    All captions are read once, to know which rows have one.
    Errors: FileNotFoundError where there are no files; ValueError for one without those columns or
    with others in them, when no example is there, and without pyarrow.
    """
    _need_pyarrow(pattern)
    files = tuple(remote_files.find_files(pattern, ending="parquet"))
    columns = Columns(image, text)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(partial(_scan, columns=columns), files)
        scanned = list(tqdm(found, "reading captions", len(files), unit=" files", disable=None))
    skips = SkipLog()
    for one in scanned:
        skips.extend(one.skipped)
    rows = np.flatnonzero(np.concatenate([one.whole for one in scanned]))
    if not len(rows):
        raise ValueError(
            f"{pattern}: no image with a caption in {len(files)} files; "
            f"left out: {base.summarise_skips(skips.collected()) or 'nothing'}"
        )
    firsts = np.cumsum([0, *(len(one.whole) for one in scanned[:-1])])
    groups = [
        (number, group, first)
        for number, one in enumerate(scanned)
        for group, first in enumerate(firsts[number] + np.cumsum([0, *one.groups[:-1]]))
        if one.groups
    ]
    return Parquet(files, columns, np.array(groups), firsts, rows, skips.collected())


def row_index(path: str, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a table, texts as bytes; columns that are not wanted are None.

    Errors: ValueError without pyarrow, or when it is no table.
    """
    _need_pyarrow(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    with remote_files.open_file(path) as opened:
        try:
            parquet = pq.ParquetFile(opened)
            others = dict.fromkeys(parquet.schema_arrow.names)
            names = [name for name in wanted if name in others]
            for batch in parquet.iter_batches(columns=names):
                columns = [_unchecked(batch.column(name)).to_pylist() for name in names]
                for values in zip(*columns, strict=True):
                    yield others | dict(zip(names, values, strict=True))
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged ({error}): write it again") from error


def _need_pyarrow(place: str) -> None:
    extras.require("pyarrow", f"{place}: Parquet needs")


def _read(file: SourceFile, group: int, columns: Columns) -> Any:
    import pyarrow.parquet as pq

    with remote_files.open_file(file.path) as opened:
        parquet = pq.ParquetFile(opened)
        names = [_leaf(parquet, columns.image), columns.text.partition("/")[0]]
        table = parquet.read_row_group(group, columns=names, use_threads=False)
    table = table.select([columns.image, names[1]])
    return table.set_column(1, names[1], _unchecked(table.column(1)))


def _unchecked(column: Any) -> Any:
    """The same with texts as bytes: nothing checks that those are UTF-8."""
    kind = _of_bytes(column.type)
    return column if kind.equals(column.type) else column.cast(kind)


def _of_bytes(kind: Any) -> Any:
    """A type with bytes in place of its texts, however deep they lie."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _of_bytes(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_of_bytes(field.type)) for field in kind])
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_of_bytes(kind.value_type)))
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_of_bytes(kind.value_type)))
    if types.is_fixed_size_list(kind):
        field = kind.value_field.with_type(_of_bytes(kind.value_type))
        return pa.list_(field, kind.list_size)
    return {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }.get(kind, kind)


def _leaf(parquet: Any, image: str) -> str:
    """The column of an image's bytes. Errors: ValueError where it has none."""
    import pyarrow as pa

    kind = parquet.schema_arrow.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind, image = kind.field("bytes").type, f"{image}.bytes"
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"column {image!r} holds no images' bytes but {kind}")
    return image


def _scan(file: SourceFile, columns: Columns) -> Scanned:
    """Find the rows with image and caption. Errors: ValueError for columns that do not fit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    skips = SkipLog()
    with remote_files.open_file(file.path) as opened:
        try:
            parquet = pq.ParquetFile(opened)
        except pa.ArrowInvalid as error:
            skips.add("damaged file", f"{file.name}: {error}")
            return Scanned([], np.zeros(0, bool), skips.collected())
        names = parquet.schema_arrow.names
        for column in (columns.image, columns.text.partition("/")[0]):
            if names.count(column) != 1:
                many = "several columns" if column in names else "no column"
                raise ValueError(
                    f"{file.path} has {many} {column!r}; it has {', '.join(names)}: name one with "
                    "image= or text="
                )
        try:
            leaf = _leaf(parquet, columns.image)
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}; name another one with image=") from error
        groups = [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
        whole, first = np.ones(sum(groups), bool), 0
        for group, count in enumerate(groups):
            wrong = _wrong(parquet, group, columns, leaf)
            for row, reason in wrong.items():
                skips.add(reason, f"{file.name}/{first + row}")
                whole[first + row] = False
            first += count
    return Scanned(groups, whole, skips.collected())


def _wrong(parquet: Any, group: int, columns: Columns, leaf: str) -> dict[int, str]:
    """Rows of a row group that are no examples, and why."""
    name, _, path = columns.text.partition("/")
    count = parquet.metadata.row_group(group).num_rows
    try:
        table = parquet.read_row_group(group, columns=[name], use_threads=False)
        texts = _unchecked(table.column(0))
        images = _has_image(parquet, group, leaf)
    except (ValueError, OSError):
        return dict.fromkeys(range(count), "damaged row group")
    wrong = {}
    for row, value in enumerate(texts.to_pylist()):
        try:
            captions = base.make_texts(value, path)
        except BadCaptionError as error:
            wrong[row] = error.reason
            continue
        except TypeError as error:
            raise ValueError(
                f"column {columns.text!r} of row group {group}, row {row} is {error}: name one of "
                "texts with text="
            ) from error
        if not captions:
            wrong[row] = "image without caption"
        elif max(map(len, captions)) > MAX_TEXT_BYTES:
            wrong[row] = "too large"
    return wrong | {int(row): "caption without image" for row in np.flatnonzero(~images)}


def _has_image(parquet: Any, group: int, leaf: str) -> np.ndarray:
    """Find the rows with an image; read only where the file does not say that all have one."""
    about = parquet.metadata.row_group(group)
    chunks = [about.column(n) for n in range(about.num_columns)]
    statistics = next(c.statistics for c in chunks if c.path_in_schema == leaf)
    if statistics is not None and statistics.has_null_count and not statistics.null_count:
        return np.ones(about.num_rows, bool)
    column = parquet.read_row_group(group, columns=[leaf], use_threads=False).column(0)
    values = (row["bytes"] if isinstance(row, dict) else row for row in column.to_pylist())
    return np.array([value is not None for value in values], bool)


def _bytes(tables: Any) -> int:
    return sum(table.nbytes for table in tables)
