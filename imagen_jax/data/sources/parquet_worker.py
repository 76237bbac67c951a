"""The process that reads Parquet: files are a stranger's, and their reader may abort or ask for all
memory.

It is asked in lines of JSON, and answers with messages: a line of JSON, which an Arrow stream
follows where it says so; the last one of an answer is `end` or `error`. See `parquet_process`.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagen_jax import limits
from imagen_jax.config.sentences import join_texts
from imagen_jax.data.sources import base
from imagen_jax.data.sources.base import MAX_TEXT_BYTES, BadCaptionError, SkipLog
from imagen_jax.io import buckets, remote_files

TEXTS_AT_ONCE, IMAGES_AT_ONCE = 256, 16  # rows that are in memory while a file is looked through
FEW_ROWS = 4096  # which a file may have even if it has fewer bytes
TIMES = 4  # of a file's bytes that reading it may take, besides `limits.PARQUET_MEMORY`
# What the library raises about damaged bytes, besides ValueError and OSError.
BROKEN = (pa.ArrowException, ArithmeticError, LookupError, RecursionError, NotImplementedError)


def serve() -> None:
    """Answer until nobody asks any more."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # where libraries may print
    before = _address_space()
    _send(out, {"ready": True})
    for line in sys.stdin.buffer:
        if not _answer(out, json.loads(line), before):  # what our own process asks
            return  # what took the memory goes with the process


def _address_space() -> int:
    """Return the bytes of addresses that this process has; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _answer(out: BinaryIO, request: Mapping[str, Any], before: int) -> bool:
    """Answer one request; False if there was no memory for it."""
    path, memory = request["path"], request["memory"]
    try:
        with remote_files.open_file(path) as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(0)
            _send(out, {"bytes": size})
            memory += TIMES * size
            if before:
                hard = resource.getrlimit(resource.RLIMIT_AS)[1]
                soft = before + memory
                if hard != resource.RLIM_INFINITY:
                    soft = min(soft, hard)
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            for made in TASKS[request["task"]](opened, request):
                _send(out, made)
    except MemoryError:
        said = (
            f"it needs more than {memory:,} bytes of memory; if you trust it, set "
            f"{limits.PARQUET_MEMORY.variable} to more than {request['memory']}"
        )
        _send(out, {"error": "memory", "said": said})
        return False
    except OSError as error:
        # The library's own about bytes, such as of a footer, has no number; a disk's error has one.
        kind = "damaged" if error.errno is None and not buckets.is_bucket(path) else "system"
        _send(out, {"error": kind, "said": str(error), "number": error.errno, "path": path})
    except ValueError as error:
        kind = "damaged" if isinstance(error, pa.ArrowException) else "refused"
        _send(out, {"error": kind, "said": str(error)})
    except BROKEN as error:
        _send(out, {"error": "damaged", "said": f"{type(error).__name__}: {error}"})
    else:
        _send(out, {"end": True})
    return True


def _send(out: BinaryIO, made: Any) -> None:
    """Send a message, or a table behind one."""
    is_table = isinstance(made, pa.Table)
    out.write(json.dumps({"table": True} if is_table else made).encode() + b"\n")
    if is_table:
        with pa.ipc.new_stream(out, made.schema) as stream:
            stream.write_table(made)
    out.flush()


def _open(opened: Any) -> Any:
    """Open a file. Errors: ValueError for one that claims more rows than it can have."""
    parquet = pq.ParquetFile(opened)
    size = opened.seek(0, os.SEEK_END)
    about = parquet.metadata
    counts = [about.row_group(n).num_rows for n in range(about.num_row_groups)]
    if min(counts, default=0) < 0 or max(sum(counts), about.num_rows) > max(size, FEW_ROWS):
        raise pa.ArrowInvalid(f"it claims {sum(counts):,} rows in {size:,} bytes")
    return parquet


def read_group(opened: Any, request: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the table of a row group's two columns, texts as bytes; of images alone, of one."""
    parquet, name = _open(opened), request["text"].partition("/")[0]
    names = [_leaf(parquet, request["image"]), *([name] if name else [])]
    table = parquet.read_row_group(request["group"], columns=names, use_threads=False)
    if not name:
        yield table.select([request["image"]])
        return
    table = table.select([request["image"], name])
    yield table.set_column(1, name, _unchecked(table.column(1)))


def read_rows(opened: Any, request: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the names of all columns, then tables of those that are wanted, texts as bytes."""
    parquet = _open(opened)
    there = list(dict.fromkeys(parquet.schema_arrow.names))
    names = [name for name in request["wanted"] if name in there]
    yield {"value": there}
    for batch in parquet.iter_batches(TEXTS_AT_ONCE, columns=names, use_threads=False):
        yield pa.table({name: _unchecked(batch.column(name)) for name in names})


def scan(opened: Any, request: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what `parquet.Scanned` holds: rows of groups, those that are no examples, and why.

    Errors: ValueError for columns that do not fit.
    """
    parquet, skips = _open(opened), SkipLog()
    names = parquet.schema_arrow.names
    for column in filter(None, (request["image"], request["text"].partition("/")[0])):
        if names.count(column) != 1:
            many = "several columns" if column in names else "no column"
            raise ValueError(
                f"{request['path']} has {many} {column!r}; it has {join_texts(names)}: name one "
                "with image= or text="
            )
    try:
        leaf = _leaf(parquet, request["image"])
    except ValueError as error:
        raise ValueError(f"{request['path']}: {error}; name another one with image=") from error
    groups = [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
    most = request["memory"] + TIMES * opened.seek(0, os.SEEK_END)
    lost, first = list[int](), 0
    for group, count in enumerate(groups):
        for row, reason in _wrong(parquet, group, request["text"], leaf, most).items():
            skips.add(reason, f"{request['name']}/{first + row}")
            lost.append(first + row)
        first += count
    skipped = {reason: [names.total, *names] for reason, names in skips.collect().items()}
    yield {"value": {"groups": groups, "lost": lost, "skipped": skipped}}


TASKS = {"scan": scan, "group": read_group, "rows": read_rows}


def _unchecked(column: Any) -> Any:
    """The same with texts as bytes: nothing checks that those are UTF-8."""
    kind = _of_bytes(column.type)
    return column if kind.equals(column.type) else column.cast(kind)


def _of_bytes(kind: Any) -> Any:
    """A type with bytes in place of its texts, however deep they lie."""
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
    kind = parquet.schema_arrow.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind, image = kind.field("bytes").type, f"{image}.bytes"
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"column {image!r} holds no images' bytes but {kind}")
    return image


def _wrong(parquet: Any, group: int, text: str, leaf: str, most: int) -> dict[int, str]:
    """Rows of a row group that are no examples, and why.

    None is where its texts, which a dictionary may repeat, are more than the `most` bytes in which
    it is read later.
    """
    name, _, path = text.partition("/")
    count = parquet.metadata.row_group(group).num_rows
    wrong: dict[int, str] = {}
    texts = enumerate(_values(parquet, group, name, TEXTS_AT_ONCE) if name else ())
    try:
        for row, value in texts:
            try:
                captions = base.make_texts(value, path)
                most -= sum(map(len, captions))
                if most < 0:
                    return dict.fromkeys(range(count), "row group too large")
                if reason := _refuse(captions):
                    wrong[row] = reason
            except BadCaptionError as error:
                wrong[row] = error.reason
            except TypeError as error:
                raise ColumnError(
                    f"column {text!r} of row group {group}, row {row} is {error}: name one of "
                    "texts with text="
                ) from error
        images = _has_image(parquet, group, leaf)
    except (ColumnError, MemoryError):
        raise
    except (ValueError, OSError, *BROKEN):
        return dict.fromkeys(range(count), "damaged row group")
    return wrong | {int(row): "caption without image" for row in np.flatnonzero(~images)}


class ColumnError(ValueError):
    """A column that holds no texts, whatever the row."""


def _refuse(captions: tuple[str, ...]) -> str:
    """Give the reason why an image with these captions is no example; "" if it is one."""
    if not captions:
        return "image without caption"
    return "too large" if max(map(len, captions)) > MAX_TEXT_BYTES else ""


def _values(parquet: Any, group: int, column: str, rows: int) -> Iterator[Any]:
    """Yield the values of a column in a row group, some rows at a time."""
    for batch in parquet.iter_batches(
        rows, row_groups=[group], columns=[column], use_threads=False
    ):
        yield from _unchecked(batch.column(0)).to_pylist()


def _has_image(parquet: Any, group: int, leaf: str) -> np.ndarray:
    """Find the rows with an image; read only where the file does not say that all have one."""
    about = parquet.metadata.row_group(group)
    chunks = [about.column(n) for n in range(about.num_columns)]
    statistics = next(c.statistics for c in chunks if c.path_in_schema == leaf)
    if statistics is not None and statistics.has_null_count and not statistics.null_count:
        return np.ones(about.num_rows, bool)
    values = _values(parquet, group, leaf, IMAGES_AT_ONCE)
    bare = (value["bytes"] if isinstance(value, dict) else value for value in values)
    return np.array([value is not None for value in bare], bool)
