"""The least store of encoded pairs, for tests that care for little of it."""

from typing import Any

import numpy as np

from imagen_jax.data.images import transforms
from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store
from imagen_jax.io.workdir import Workdir


def make_store(folder: Workdir, *, count: int, **changes: Any) -> Store:
    """A store of `count` examples at 4 pixels, with encodings of one token and one number."""
    plain = {
        "dataset": "any",
        "split": "train",
        "sizes": (4,),
        "encoder": "t5",
        "identity": "0",
        "vocabulary": "1",
        "width": 1,
        "max_length": 1,
    }
    return Store(folder=folder, count=count, **(plain | changes))


def make_pairs(folder: Workdir, *, side: int, width: int, length: int, count: int = 16) -> Store:
    """A store of grey images of `side` pixels, with random encodings of two tokens."""
    sizes = {"sizes": (side,), "width": width, "max_length": length, "vocabulary": "1"}
    target = make_store(folder, count=count, dataset="fake", **sizes)
    png = transforms.encode(np.full((side, side, 3), 100, np.uint8))
    draw = np.random.default_rng(0)  # else attention's keys have no gradient
    text = records.round_encoding(draw.standard_normal((2, width), np.float32), "bfloat16")
    store.begin_store(target)
    store.write_shard(
        target,
        0,
        [
            Record(key=str(i), captions=("",), images={side: png}, texts=(text,))
            for i in range(count)
        ],
    )
    store.write_empty(target, records.round_encoding(np.ones((1, width), np.float32), "bfloat16"))
    store.finish_store(target)
    return store.open_store(target.folder)
