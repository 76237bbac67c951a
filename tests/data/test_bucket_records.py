"""A store's records read from a bucket: those of the local store, bit for bit, or one sentence."""

import dataclasses
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloud_storage
import numpy as np
import pytest
from etils import epath

from imagen_jax.data.store import block_cache, records, store
from imagen_jax.data.store.block_cache import CacheSettings
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store

COUNT, ROOM = 60, 1 << 30
FOLDER = "gs://bucket/pairs"


def make(index: int) -> Record:
    rng = np.random.default_rng(index)
    text = rng.standard_normal((1 + index % 5, 3)).astype(np.float32)
    return Record(
        key=f"k{index}",
        captions=(f"№ {index}",),
        images={16: rng.bytes(int(rng.integers(100, 90_000)))},
        texts=(records.round_encoding(text, "bfloat16"),),
    )


@pytest.fixture
def local(tmp_path: Path, write_store: Callable) -> Store:
    """Sixty records in three shards of 1 to 2 MB."""
    target = Store(
        folder=tmp_path / "local",
        dataset="fake/all",
        split="train",
        count=COUNT,
        sizes=(16,),
        encoder="t5",
        identity="0123",
        vocabulary="4567",
        width=3,
        max_length=5,
        shard_records=25,
    )
    return write_store(target, [make(n) for n in range(COUNT)])


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
