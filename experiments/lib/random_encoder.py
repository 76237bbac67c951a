"""A text encoder that never learned: the architecture of another one with random weights.

Its encodings tell words and their order apart, and nothing else: the least that any frozen encoder
of that size gives a network to condition on.
"""

from pathlib import Path

import jax
import numpy as np
from flax import serialization

from imagen_jax import rng
from imagen_jax.io.atomic import write_atomic
from imagen_jax.text import t5
from imagen_jax.text.encoder import TextEncoder

CHECKPOINT = "checkpoint_0"
MODEL = "spiece.model"
VERSION = 3  # of T5X's files


def write(folder: Path, like: TextEncoder, *, seed: int) -> Path:
    """A T5X checkpoint with the sizes and tokenizer of `like`; the same seed, the same weights.

    What is in `folder` already is kept. Returns `folder`, which `TextEncoder.load` reads.
    """
    file = folder / CHECKPOINT / "checkpoint"
    if file.is_file():
        return folder
    init = jax.jit(t5.init, static_argnums=1)
    params = init(rng.fold(rng.root(seed), "random_encoder"), like.config)
    target = jax.tree.map(np.asarray, params)
    tree = {"version": VERSION, "optimizer": {"state": {"step": 0}, "target": target}}
    file.parent.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(like.tokenizer.model)
    # Written last: a folder without it is written again.
    write_atomic(file, serialization.msgpack_serialize(tree))
    return folder
