"""Tables of captions by file name: JSON lines, CSV, Parquet; rows that cannot be read are named."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from imagen_jax.config.sentences import abridge, join_texts, shorten
from imagen_jax.data.sources import base
from imagen_jax.data.sources.base import BadCaptionError, SkipLog
from imagen_jax.io import json_reader, remote_files

FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE_NAME = "file_name"
LONGEST = 16 << 20  # characters of a line
Rows = Iterator[Mapping[str, Any]]


def read_table(table: str, column: str, skips: SkipLog) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The file name and the captions of each row; `column` may lead into one: `alt/texts`.

    Errors: ValueError for a table that has no such columns, or no text in that of texts.
    """
    wanted = (FILE_NAME, column.partition("/")[0])
    columns, count, no_text = dict[str, None](), 0, ""
    for row in {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[table.rpartition(".")[2]](
        table, wanted, skips
    ):
        columns.update(dict.fromkeys(row))
        name = row.get(FILE_NAME)
        if isinstance(name, bytes):
            name = base.decode_text(name)
        if not isinstance(name, str) or not name:
            skips.add("row without file_name", shorten(name))
            continue
        try:
            captions = base.make_texts(row, column) if wanted[1] in row else ()
        except TypeError as error:
            where = f"{table}: column {column!r} of {abridge(base.make_printable(name))}"
            no_text = no_text or f"{where} is {abridge(str(error))}"
            skips.add("caption that is no text", f"{base.show_name(name)} ({error})")
        except BadCaptionError as error:
            skips.add(error.reason, f"{base.show_name(name)}: {error}")
        else:
            count += 1
            yield name, captions
    if columns:
        _need(table, wanted, columns)
    if no_text and not count:
        raise ValueError(no_text)


def _need(table: str, wanted: Sequence[str], columns: Iterable[str]) -> None:
    """Errors: ValueError for a table that lacks a column that is wanted."""
    for name in wanted:
        if name not in columns:
            raise ValueError(
                f"{table} has no column {name!r}; it has {join_texts(columns)}"
                + ("" if name == FILE_NAME else ": name the one of texts with text=")
            )


def _text(table: str) -> io.TextIOWrapper:
    """A table to read; what is no Unicode in it stays as lone surrogates, in its row alone."""
    file = remote_files.open_file(table)
    codec = json.detect_encoding(file.read(4))
    file.seek(0)
    errors = "surrogateescape" if codec.startswith("utf-8") else "surrogatepass"
    return io.TextIOWrapper(file, encoding=codec, errors=errors, newline="")


def _jsonl(table: str, wanted: Sequence[str], skips: SkipLog) -> Rows:
    with _text(table) as lines:
        for number, line in enumerate(_whole(lines, table, skips), 1):
            try:
                row = _parse(line) if line.strip() else None
            except ValueError:
                row = ()
            if isinstance(row, dict):
                yield row
            elif row is not None:
                skips.add("unreadable row", f"{_name(table)} line {number}")


def _parse(line: str) -> Any:
    return json_reader.parse_json(line, where="it", remedy="-", depth=base.parse_depth())


def _csv(table: str, wanted: Sequence[str], skips: SkipLog) -> Rows:
    with _text(table) as lines:
        # Strict, or a quote that is not closed takes all rows behind it for its text.
        reader = csv.reader(_whole(lines, table, skips), strict=True)
        header: list[str] = []
        while True:
            first = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:  # such as an enormous field
                fields = [""]
            if not header:
                header = _header(fields, table, wanted)
            elif len(fields) == len(header):
                yield dict(zip(header, fields, strict=True))
            elif fields:
                last = f"-{reader.line_num}" if reader.line_num > first else ""
                skips.add("unreadable row", f"{_name(table)} line {first}{last}")


def _header(names: list[str], table: str, wanted: Sequence[str]) -> list[str]:
    """Errors: ValueError for a column that is wanted and there several times."""
    for name in wanted:
        if names.count(name) > 1:
            raise ValueError(
                f"{table} has {names.count(name)} columns {name!r}: give each a name of its own"
            )
    return names


def _whole(lines: io.TextIOWrapper, table: str, skips: SkipLog) -> Iterator[str]:
    """Lines as far as they can be read: UTF-16 may end within a character.

    One of more than `LONGEST` characters is left out, and is never in memory.
    """
    number = 0
    try:
        while line := lines.readline(LONGEST):
            number += 1
            if len(line) < LONGEST or line.endswith("\n"):
                yield line
                continue
            skips.add("unreadable row", f"{_name(table)} line {number}, which is too long")
            while line and not line.endswith("\n"):
                line = lines.readline(LONGEST)
            yield "\n"
    except UnicodeDecodeError as error:
        skips.add("unreadable row", f"{_name(table)}, the last ({error.reason})")


def _parquet(table: str, wanted: Sequence[str], skips: SkipLog) -> Rows:
    from imagen_jax.data.sources import parquet

    yield from parquet.row_index(table, wanted)


def _name(table: str) -> str:
    return table.rpartition("/")[2]
