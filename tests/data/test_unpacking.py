"""Stores whose records are compressed: kilobytes that unpack to gigabytes are never unpacked."""

import dataclasses
import time
from pathlib import Path

import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from cloud_storage import Bucket

from imagen_jax.data.store import plain_shards, shard_file, shard_offsets
from imagen_jax.data.store.block_cache import CacheSettings
from imagen_jax.data.store.index import EMPTY
from imagen_jax.data.store.store import Store
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.workdir import as_path

SAYS = "(its footer is cut short or compressed|a record in it is compressed, as ours never are)"


def bomb(file: Path, count: int) -> None:
    """Records of zeros that take a thousandth of what they unpack to."""
    writer = ArrayRecordWriter(str(file), "group_size:1,zstd")
    for _ in range(count):
        writer.write(bytes(1 << 24))
    writer.close()


def planted(found: Store, folder: Path) -> tuple[Store, Path]:
    """The store with a bomb in place of its first shard, whose size the index has."""
    first, *others = found.files
    bomb(folder / first.name, first.count)
    size = (folder / first.name).stat().st_size
    files = (first._replace(bytes=size), *others)
    return dataclasses.replace(found, files=files), folder / first.name


def test_records_that_are_compressed_are_damage(local: Store, tmp_path: Path) -> None:
    assert local.source()[0].key == "k0"
    found, file = planted(local, Path(local.folder))
    read = found.source()
    began = time.process_time()
    for number in range(20):
        with pytest.raises(CorruptDataError, match=f"{file} is damaged: {SAYS}"):
            read[number]
    assert time.process_time() - began < 1
    assert read[30].key == "k30"


@pytest.mark.parametrize("size", [0, 1 << 30])
def test_so_are_those_in_a_bucket(local: Store, bucket: Bucket, tmp_path: Path, size: int) -> None:
    found, _ = planted(local, Path(local.folder))
    for file in Path(local.folder).iterdir():
        bucket.put(f"s/{file.name}", file.read_bytes())
    settings = CacheSettings(folder=tmp_path / "cache", size=size)
    read = dataclasses.replace(found, folder=as_path("gs://bucket/s"), cache=settings).source()
    for _ in range(2):  # from the bucket, and from the copy that is there then
        with pytest.raises(CorruptDataError, match=SAYS):
            read[0]
    assert read[30].key == "k30"


def test_an_empty_caption_that_is_compressed_is_damage(local: Store) -> None:
    file = Path(local.folder) / EMPTY
    assert shard_file.read_first(file)
    bomb(file, 1)
    with pytest.raises(CorruptDataError, match=f"{file} is damaged .{SAYS}"):
        shard_file.read_first(file)


@pytest.mark.parametrize("place", [24, 40])  # the kind of a chunk, and how it is compressed
def test_a_compressed_record_behind_a_plain_footer_is_damage(local: Store, place: int) -> None:
    file = Path(local.folder) / local.files[0].name
    data = bytearray(file.read_bytes())
    footer = shard_offsets.find_footer(bytes(data[-shard_offsets.BLOCK :]), size=len(data))
    offsets = shard_offsets.read_offsets(bytes(data[footer:]), start=footer, count=25)
    start = int(offsets[1])
    shards = plain_shards.PlainShards([file], [25])
    for number in range(25):
        shards.check(number)
    assert start % shard_offsets.BLOCK > shard_offsets.BLOCK_HEADER  # no header of a block is in it
    data[start + place] = ord("z")
    file.write_bytes(data)
    with pytest.raises(CorruptDataError, match="a record in it is compressed, as ours never are"):
        local.source()[1]
    assert local.source()[0].key == "k0"
