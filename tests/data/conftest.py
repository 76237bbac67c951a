"""What tests of several files need: a whole store, a bucket."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cloud_storage
import numpy as np
import pytest

from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store


def write(target: Store, examples: Sequence[Record]) -> Store:
    for number in store.begin_store(target):
        store.write_shard(target, number, [examples[i] for i in target.shards()[number]])
    empty = np.full((1, target.width), 7, np.float32)
    store.write_empty(target, records.round_encoding(empty, target.text_dtype))
    finished = store.finish_store(target)
    assert finished is not None
    return finished


@pytest.fixture(scope="session")
def write_store() -> Callable[[Store, Sequence[Record]], Store]:
    """`write(target, examples)`: all of a store at once."""
    return write


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[cloud_storage.Bucket]:
    """`gs://bucket`, in memory, for this process."""
    with cloud_storage.serve_here(monkeypatch) as held:
        yield held


def _make_record(index: int) -> Record:
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
        count=60,
        sizes=(16,),
        encoder="t5",
        identity="0123",
        vocabulary="4567",
        width=3,
        max_length=5,
        shard_records=25,
    )
    return write_store(target, [_make_record(n) for n in range(60)])
