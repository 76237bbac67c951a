"""When damage is too much: a share of the distinct records that a run has seen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_store import make_store

from imagen_jax.data import corrupt_records, pipeline
from imagen_jax.data.pipeline import LoadedBatch
from imagen_jax.data.store import records
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.shard_file import ShardFile
from imagen_jax.data.store.store import Store

STORE = make_store(Path("s"), count=5000, files=(ShardFile("records", 5000, 1),))
TEXT = records.round_encoding(np.ones((1, 1), np.float32), "float32")
RECORD = Record(key="k", captions=("",), images={}, texts=(TEXT,))


def fake(lost: Sequence[int], index: Sequence[int]) -> LoadedBatch:
    return LoadedBatch(
        pipeline.Batch(
            np.zeros((len(index), 1, 1, 3), np.uint8),
            None,
            np.zeros((len(index), 1, 1), np.float32),
            np.ones((len(index), 1), bool),
            np.array(index, np.int32),
        ),
        np.array(lost, np.int32),
    )


def test_the_share_is_of_a_thousand_or_of_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "source", lambda _: dict.fromkeys(range(100), RECORD))
    tally = corrupt_records.CorruptRecordCounter(STORE, tmp_path, most=0.01)
    tally.add(1, fake(range(10), range(10, 20)))  # all that was seen, yet 1 % of a thousand
    with pytest.raises(ValueError, match="11 of 22 records"):
        tally.add(2, fake([30], [20]))
    tally = corrupt_records.CorruptRecordCounter(STORE, tmp_path, most=0.01)
    tally.add(1, fake([], range(21, 2021)))
    tally.add(2, fake(range(20), range(21, 41)))  # 20 of 2020
    with pytest.raises(ValueError, match="21 of 2021 records"):
        tally.add(3, fake([20], [21]))
    tally = corrupt_records.CorruptRecordCounter(STORE, tmp_path, most=0.01)
    for step in range(5):
        tally.add(step, fake([7] * 8, range(8)))  # again and again, but one
