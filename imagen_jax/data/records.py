"""The example format: encoded captions beside a picture's PNG pyramid, written and read here."""

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import Float

VERSION = 1
INDEX = "store.json"  # written last: a folder without it is not a store
FILE_BYTES = 256 * 2**20  # a new file is begun beyond it
# One record per chunk for random access; PNG bytes do not compress further.
WRITER_OPTIONS = "group_size:1,uncompressed"

TextDtype = Literal["bfloat16", "float32"]
DTYPES: dict[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One captioned picture: PNG bytes by side, and its caption's encoding without padding."""

    key: str
    caption: str
    images: dict[int, bytes]
    text: Float[np.ndarray, "n d"]


class File(NamedTuple):
    """One ArrayRecord file of a store."""

    name: str
    count: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Store:
    """A folder of records, and what is in them; `files` is empty until it is written."""

    folder: Path
    dataset: str
    split: str
    sizes: tuple[int, ...]  # sides of each record's pictures
    encoder: str  # its name; `identity` digests its weights and tokenizer
    identity: str
    width: int  # of one token's encoding
    max_length: int  # tokens, end of sentence included
    text_dtype: TextDtype = "bfloat16"
    files: tuple[File, ...] = ()

    @property
    def count(self) -> int:
        """Number of records."""
        return sum(file.count for file in self.files)

    def source(self) -> "Records":
        """The records by index, in the order of the dataset."""
        return Records(self)


class Records:
    """Random access to a store's records; threads may share it, worker processes may copy it."""

    def __init__(self, store: Store) -> None:
        self._text_dtype = store.text_dtype
        # With its count in brackets a file is not opened to count its records.
        self._source = ArrayRecordDataSource(
            [f"{store.folder / file.name}[0:{file.count}]" for file in store.files],
            reader_options={"max_parallelism": "0"},  # no thread pool for one small record
        )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        return unpack(self._source[index], text_dtype=self._text_dtype)


def pack(record: Record) -> bytes:
    """A record as msgpack bytes."""
    tokens, width = record.text.shape
    images = sorted(record.images.items())
    return msgpack.packb([record.key, record.caption, images, tokens, width, record.text.tobytes()])


def unpack(data: bytes, *, text_dtype: TextDtype) -> Record:
    """The record that `pack` made bytes of; its arrays are read-only.

    Errors: ValueError when the bytes are no record of that `text_dtype`.
    """
    key, caption, images, tokens, width, text = msgpack.unpackb(data)
    array = np.frombuffer(text, DTYPES[text_dtype]).reshape(tokens, width)
    return Record(key=key, caption=caption, images=dict(images), text=array)


def write(target: Store, records: Iterable[Record], *, file_bytes: int = FILE_BYTES) -> Store:
    """Stream records into `target.folder`; until all are written there is no store.

    Errors: FileExistsError when a store is there; ValueError when there are no records or one does
    not fit `target`. Files of an interrupted write are removed first.
    """
    if (target.folder / INDEX).exists():
        raise FileExistsError(f"{target.folder} already holds an encoded dataset: delete it first")
    target.folder.mkdir(parents=True, exist_ok=True)
    for leftover in target.folder.glob("records-*"):
        leftover.unlink()
    counts = _write_files(target, records, file_bytes)
    if not counts:
        raise ValueError(f"{target.dataset} {target.split} has no pictures: nothing to write")
    files = []
    for number, count in enumerate(counts):
        final = target.folder / f"records-{number:05d}-of-{len(counts):05d}.array_record"
        _temporary(target.folder, number).replace(final)
        files.append(File(final.name, count, final.stat().st_size))
    store = dataclasses.replace(target, files=tuple(files))
    _write_index(store)
    return store


def open(folder: Path | str) -> Store:
    """The store in a folder, after checking that all of it is there.

    Errors: FileNotFoundError when there is none or it was never finished; ValueError when it is of
    another version or damaged. Each names the place and the remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no encoded dataset at {folder}: run `imagen encode` first")
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"{folder} has no {INDEX}, so its encoding was interrupted: run `imagen encode` again"
        )
    store = _read_index(folder)
    for file in store.files:
        damage = _damage(folder / file.name, file)
        if damage:
            raise ValueError(_sentence(folder, damage))
    return store


def _write_files(target: Store, records: Iterable[Record], file_bytes: int) -> list[int]:
    """Write under temporary names; how many records each file got."""
    counts: list[int] = []
    writer, written = None, 0
    try:
        for record in records:
            if writer is None or written >= file_bytes:
                if writer is not None:
                    writer.close()
                path = _temporary(target.folder, len(counts))
                writer, written = ArrayRecordWriter(str(path), WRITER_OPTIONS), 0
                counts.append(0)
            _refuse_misfit(target, record)
            data = pack(record)
            writer.write(data)
            written += len(data)
            counts[-1] += 1
    finally:
        if writer is not None:
            writer.close()
    return counts


def _refuse_misfit(target: Store, record: Record) -> None:
    tokens, width = record.text.shape
    found = (tuple(sorted(record.images)), width, record.text.dtype.name)
    wanted = (tuple(sorted(target.sizes)), target.width, target.text_dtype)
    if found != wanted or tokens > target.max_length:
        raise ValueError(
            f"record {record.key} has (sizes, text width, dtype) = {found} and {tokens} tokens; "
            f"{target.folder} takes {wanted} and at most {target.max_length} tokens"
        )


def _write_index(store: Store) -> None:
    fields = {f.name: getattr(store, f.name) for f in dataclasses.fields(store)}
    fields |= {"files": [file._asdict() for file in store.files], "count": store.count}
    del fields["folder"]  # a store may be moved
    temporary = store.folder / f"{INDEX}.tmp"
    temporary.write_text(json.dumps({"version": VERSION, **fields}, indent=2) + "\n")
    os.replace(temporary, store.folder / INDEX)


def _read_index(folder: Path) -> Store:
    path = folder / INDEX
    try:
        fields = json.loads(path.read_text())
        version = fields.pop("version")
        if version != VERSION:
            damage = f"{INDEX} has format {version}, and this program reads format {VERSION}"
            raise ValueError(_sentence(folder, damage))
        count = fields.pop("count")
        fields["files"] = tuple(File(**file) for file in fields["files"])
        store = Store(folder=folder, **fields | {"sizes": tuple(fields["sizes"])})
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(_sentence(folder, f"{INDEX} cannot be read ({error})")) from error
    if store.count != count or not count:
        damage = f"{INDEX} promises {count} records, but its files {store.count}"
        raise ValueError(_sentence(folder, damage))
    return store


def _damage(path: Path, file: File) -> str:
    """What is wrong with a file; "" if nothing is."""
    if not path.is_file():
        return f"{file.name} is missing"
    size = path.stat().st_size
    if size != file.bytes:
        what = "was cut short" if size < file.bytes else "has grown"
        return f"{file.name} {what}: {size} bytes instead of {file.bytes}"
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    try:
        count = reader.num_records()
    finally:
        # Closing a reader of a file that is no ArrayRecord raises; its zero count says it already.
        if reader.ok():
            reader.close()
    return "" if count == file.count else f"{file.name} has {count} records, not {file.count}"


def _sentence(folder: Path, damage: str) -> str:
    return f"the encoded dataset in {folder} is damaged: {damage}; delete it, then `imagen encode`"


def _temporary(folder: Path, number: int) -> Path:
    return folder / f"records-{number:05d}.tmp"
