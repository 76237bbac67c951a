"""A store's records read from a bucket: those of the local store, bit for bit, or one sentence."""

import dataclasses
import errno
import gc
import itertools
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloud_storage
import numpy as np
import pytest
from etils import epath

from imagen_jax.data.store import block_cache, cache_filler, records, store
from imagen_jax.data.store.block_cache import CacheSettings
from imagen_jax.data.store.store import Store
from imagen_jax.io import buckets
from imagen_jax.io.errors import CorruptDataError

COUNT, ROOM = 60, 1 << 30
FOLDER = "gs://bucket/pairs"


@pytest.fixture(params=[ROOM, 1 << 20], ids=["copies", "ranges"])
def remote(
    local: Store,
    bucket: cloud_storage.Bucket,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    """The store in a bucket, with a cache that it fits and with one that it does not."""
    monkeypatch.setattr(block_cache, "BLOCK", 1 << 18)
    upload(local, bucket)
    settings = CacheSettings(folder=tmp_path / "cache", size=request.param)
    return dataclasses.replace(local, folder=epath.Path(FOLDER), cache=settings)


def upload(local: Store, bucket: cloud_storage.Bucket) -> None:
    for file in local.folder.iterdir():
        bucket.put(f"pairs/{file.name}", file.read_bytes())


def packed(source: store.Records, index: int) -> bytes:
    return records.pack_record(source[index])


def test_records_are_those_of_the_local_store(local: Store, remote: Store) -> None:
    source, expected = remote.source(), local.source()
    assert len(source) == COUNT
    order = np.random.default_rng(0).permutation(2 * COUNT) % COUNT
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: packed(source, int(index)), order))
    assert found == [packed(expected, int(index)) for index in order]
    source.prefetch(range(COUNT))
    copy = pickle.loads(pickle.dumps(source))  # as worker processes get it
    assert [packed(copy, n) for n in range(COUNT)] == [packed(expected, n) for n in range(COUNT)]
    assert [packed(source, n) for n in range(COUNT)] == [packed(expected, n) for n in range(COUNT)]
    with pytest.raises(IndexError, match=f"record {COUNT} of {COUNT}"):
        source[COUNT]


def all_packed(source: store.Records) -> list[bytes]:
    return [packed(source, index) for index in range(COUNT)]


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def wait_until_filled(remote: Store, bucket: cloud_storage.Bucket) -> None:
    for _ in range(500):
        there, _, _, size, _ = remote.source().describe().split()[-5:]
        if there == size:
            return
        time.sleep(0.01)
    raise AssertionError(remote.source().describe())


def folders(remote: Store) -> set[str]:
    return {path.name for path in remote.cache.folder.iterdir() if path.is_dir()}


copies = pytest.mark.parametrize("remote", [ROOM], ids=["copies"], indirect=True)


@copies
def test_a_later_run_reads_nothing_but_the_copies(
    local: Store, remote: Store, bucket: cloud_storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = remote.source()
    source.prefetch([0])
    wait_until_filled(remote, bucket)
    monkeypatch.setattr(buckets, "read_range", refuse)
    assert all_packed(remote.source()) == all_packed(local.source())


def refuse(*_: object) -> bytes:
    raise OSError("the bucket was asked")


@copies
def test_what_a_process_wrote_before_it_was_killed_is_taken_block_by_block(
    local: Store, remote: Store, bucket: cloud_storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = remote.source()
    source.prefetch([0])
    wait_until_filled(remote, bucket)
    (folder,) = folders(remote)
    shard = remote.cache.folder / folder / local.files[0].name
    content, blocks = shard.read_bytes(), remote.cache.folder / folder / block_cache.BLOCKS
    with shard.open("r+b") as file:  # a block that was written halfway, and its byte was not set
        file.seek(1 << 18)
        file.write(bytes(1 << 17))
    with blocks.open("r+b") as file:
        file.seek(1)
        file.write(b"\0")
    assert all_packed(remote.source()) == all_packed(local.source())
    wait_until_filled(remote, bucket)
    assert shard.read_bytes() == content


@copies
def test_damage_of_a_copy_is_mended_from_the_bucket(
    local: Store, remote: Store, bucket: cloud_storage.Bucket
) -> None:
    source = remote.source()
    source.prefetch([0])
    wait_until_filled(remote, bucket)
    (folder,) = folders(remote)
    for file in local.files[:3]:
        copy = remote.cache.folder / folder / file.name
        sound, rng = copy.read_bytes(), np.random.default_rng(0)
        damaged = bytearray(sound)
        for place in rng.integers(64, len(sound), 200):
            damaged[place] ^= 255
        copy.write_bytes(damaged)
    assert all_packed(remote.source()) == all_packed(local.source())


def test_damage_in_the_bucket_is_told_by_record(
    local: Store, remote: Store, bucket: cloud_storage.Bucket
) -> None:
    name, generation = f"pairs/{local.files[0].name}", 7
    content = bytearray(bucket.objects[name][1])
    content[300_000] ^= 1
    bucket.objects[name] = generation, bytes(content)
    source, expected, told = remote.source(), local.source(), {}
    for index in range(COUNT):
        try:
            assert packed(source, index) == packed(expected, index)
        except CorruptDataError as error:
            told[index] = str(error)
    ((index, sentence),) = told.items()
    assert sentence.startswith(f"record {index} of {FOLDER}: ")
    footer = bucket.objects[f"pairs/{local.files[2].name}"][1][:-20_000] + bytes(20_000)
    bucket.objects[f"pairs/{local.files[2].name}"] = 8, footer[:-65536] + b"\1" * 65536
    with pytest.raises(CorruptDataError, match=f"{FOLDER}/{local.files[2].name} is damaged: its"):
        remote.source()[55]


def test_a_missing_or_other_shard_is_refused_by_name(
    local: Store, remote: Store, bucket: cloud_storage.Bucket
) -> None:
    name = f"pairs/{local.files[1].name}"
    generation, content = bucket.objects.pop(name)
    with pytest.raises(ValueError, match=f"{local.files[1].name} is missing"):
        remote.source()
    bucket.objects[name] = generation, content[:-1]
    with pytest.raises(ValueError, match=rf"{local.files[1].name} has \d+ bytes instead of"):
        remote.source()


def test_fewer_bytes_than_asked_for_are_never_kept(
    local: Store, remote: Store, bucket: cloud_storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_filler, "PAUSE", 0.01)
    count = itertools.count()

    def cut(method: str, text: str) -> cloud_storage.Fault | None:
        short = "alt=media" in text and next(count) % 3 == 1
        return cloud_storage.Fault(cut=0.5, short=True) if short else None

    monkeypatch.setattr(bucket, "take_fault", cut)
    source, expected, told = remote.source(), local.source(), []
    for index in np.random.default_rng(2).permutation(2 * COUNT) % COUNT:
        try:
            assert packed(source, int(index)) == packed(expected, int(index))
        except OSError as error:
            told.append(str(error))
    assert told
    assert all(sentence.startswith(f"{FOLDER}/records-0000") for sentence in told)
    assert all("bytes arrived of the" in sentence for sentence in told)


def test_a_shard_that_is_written_again_while_it_is_read_is_refused(
    local: Store, remote: Store, bucket: cloud_storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_filler, "fill", lambda _: threading.Event())  # not ahead of need
    source, name = remote.source(), local.files[1].name
    first = sum(file.count for file in local.files[:1])
    assert packed(source, first) == packed(local.source(), first)
    bucket.put(f"pairs/{name}", bucket.objects[f"pairs/{name}"][1])  # of the same size
    with pytest.raises(
        OSError, match=rf"^{FOLDER}/{name} was written again, or deleted, while it was read"
    ):
        source[first + local.files[1].count - 1]
    assert all_packed(remote.source()) == all_packed(local.source())


@copies
def test_stores_that_were_not_read_for_long_make_room_and_those_in_use_do_not(
    local: Store, remote: Store, bucket: cloud_storage.Bucket
) -> None:
    for n in range(4):
        for file in local.folder.iterdir():
            bucket.put(f"pairs{n}/{file.name}", file.read_bytes())
    need = 2 * sum(file.bytes for file in local.files) + (1 << 18)
    settings = dataclasses.replace(remote.cache, size=need)

    def opened(n: int) -> store.Records:
        place = epath.Path(f"gs://bucket/pairs{n}")
        return dataclasses.replace(remote, folder=place, cache=settings).source()

    def read(source: store.Records) -> str:
        assert all_packed(source) == all_packed(local.source())
        assert on_disk(settings.folder) <= need
        return source.describe()

    first = opened(0)
    assert "through copies" in read(first)
    (zero,) = folders(remote)
    assert "through copies" in read(opened(1))
    assert "through copies" in read(opened(2))  # pairs1 made room, as pairs0 is in use
    assert zero in folders(remote)
    assert len(folders(remote)) == 2
    second = opened(2)
    assert "which are in use" in read(opened(3))
    del first, second
    gc.collect()
    assert "through copies" in read(opened(3))
    assert zero not in folders(remote)


@copies
def test_a_full_disk_is_told(
    remote: Store, bucket: cloud_storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"was not written \(No space left on device\): make room"):
        remote.source()[0]
    monkeypatch.undo()


@copies
def test_a_disk_with_too_little_room_is_not_filled(
    remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(remote.cache.folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    assert "10,000 bytes free" in remote.source().describe()


def test_the_description_says_how_records_are_read(remote: Store, local: Store) -> None:
    assert local.source().describe() == ""
    told = remote.source().describe()
    if remote.cache.size == ROOM:
        assert told.startswith(f"{FOLDER} is read through copies in {remote.cache.folder}/")
        assert told.endswith("which have 0 of its 3,014,656 bytes")
    else:
        assert told.startswith(f"{FOLDER} is read record by record, which is slow, as its ")
        assert told.endswith(" are more than --cache-size 1,048,576: give a larger --cache-size")
