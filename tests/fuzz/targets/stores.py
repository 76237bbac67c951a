"""A store of encoded pairs: its index, shards, records, footers and list of what was skipped."""

from pathlib import Path

import numpy as np
import small_store
from fuzz.mutator import Files, Link, read_files
from fuzz.target import Target

from imagen_jax.data.store import index, records, shard_offsets, skipped, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.skipped import Skipped
from imagen_jax.io.errors import CorruptDataError

COUNT = 5
TEXT = {"int8": 2, "bfloat16": 1, "float32": 3}


def _record(number: int, dtype: records.TextDtype = "bfloat16") -> Record:
    text = records.round_encoding(np.full((1, 1), number, np.float32), dtype)
    return Record(key=f"k{number}", captions=(f"№ {number}",), images={4: b"png"}, texts=(text,))


def _write_store(folder: Path) -> None:
    target = small_store.make_store(folder, count=COUNT, shard_records=3)
    for number in store.begin_store(target):
        examples = target.shards()[number]
        store.write_shard(target, number, [_record(i) for i in examples])
    store.write_empty(target, _record(0).texts[0])
    assert store.finish_store(target) is not None


def _stores(scratch: Path) -> list[Files]:
    if not (scratch / "store").is_dir():
        _write_store(scratch / "store")
        lines = [Skipped(1, "k1", "too small", "3x3"), Skipped(None, "a.tar", "damaged tar")]
        skipped.write_skipped(scratch / "store" / skipped.FILE, lines)
    return [read_files(scratch / "store")]


def _parse_store(folder: Path) -> None:
    found = store.open_store(folder)
    source = found.source()
    for number in range(min(len(source), 2 * COUNT)):
        try:
            source[number]
        except CorruptDataError:
            continue
    found.empty()
    skipped.read_skipped(folder)


def _indices(scratch: Path) -> list[Files]:
    (files,) = _stores(scratch)
    return [{index.INDEX: files[index.INDEX]}]


def _parse_index(folder: Path) -> None:
    store.describe_source(folder)


def _skipped_lists(scratch: Path) -> list[Files]:
    (files,) = _stores(scratch)
    return [{skipped.FILE: files[skipped.FILE]}]


def _parse_skipped(folder: Path) -> None:
    skipped.summarise_skipped(
        [skipped.Total(one.reason, 1) for one in skipped.read_skipped(folder)]
    )


def _records(_: Path) -> list[Files]:
    found: list[Files] = []
    for dtype in records.DTYPES:
        found.append({dtype: records.pack_record(_record(3, dtype))})
    return found


def _parse_record(folder: Path) -> None:
    for file in folder.iterdir():
        dtype = file.name if file.name in records.DTYPES else "float32"
        record = records.unpack_record(_bytes(file), text_dtype=dtype)
        assert all(text.is_finite() in (True, False) for text in record.texts)
        assert all(isinstance(png, bytes) for png in record.images.values())


def _shards(scratch: Path) -> list[Files]:
    """Each under the number of its records."""
    (files,) = _stores(scratch)
    shards = sorted(name for name in files if name.startswith("records-"))
    return [{str(count): files[name]} for count, name in zip((3, 2), shards, strict=True)]


def _parse_footer(folder: Path) -> None:
    for file in folder.iterdir():
        data, count = _bytes(file), int(file.name)
        start = shard_offsets.find_footer(data[-shard_offsets.BLOCK :], size=len(data))
        offsets = shard_offsets.read_offsets(data[start:], start=start, count=count)
        assert len(offsets) == count + 1


def _bytes(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _seal_shard(files: Files) -> Files:
    """Cut a shard down to whole blocks, as every file of the format has."""
    whole: Files = {}
    for name, data in files.items():
        size = 0 if isinstance(data, Link) else len(data) // shard_offsets.BLOCK
        whole[name] = data if isinstance(data, Link) else data[: size * shard_offsets.BLOCK]
    return whole


TARGETS = [
    Target(name="store", corpus=_stores, parse=_parse_store, is_cheap=False),
    Target(name="store_index", corpus=_indices, parse=_parse_index),
    Target(name="skipped_list", corpus=_skipped_lists, parse=_parse_skipped),
    Target(name="record", corpus=_records, parse=_parse_record),
    Target(name="shard_footer", corpus=_shards, parse=_parse_footer, seal=_seal_shard),
]
