"""The least store of encoded pairs, for tests that care for little of it."""

from typing import Any

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
