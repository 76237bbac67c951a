"""Writing a whole store, as tests of what reads it need."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from imagen_jax.data import records, store
from imagen_jax.data.records import Record
from imagen_jax.data.store import Store


def write(target: Store, examples: Sequence[Record]) -> Store:
    for number in store.begin(target):
        store.write_shard(target, number, [examples[i] for i in target.shards()[number]])
    empty = np.full((1, target.width), 7, np.float32)
    store.write_empty(target, records.rounded(empty, target.text_dtype))
    finished = store.finish(target)
    assert finished is not None
    return finished


@pytest.fixture(scope="session")
def write_store() -> Callable[[Store, Sequence[Record]], Store]:
    """`write(target, examples)`: all of a store at once."""
    return write
