"""What tests of several files need: a whole store, a bucket."""

from collections.abc import Callable, Iterator, Sequence

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
