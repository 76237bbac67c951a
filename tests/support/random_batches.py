"""Batches of random images and texts, of the sizes that small configs train on."""

import numpy as np
from small_network import FOLDER

from imagen_jax.data.pipeline import Batch

SMALL_SR = str(FOLDER / "sr16.py")
SIDES = {"tiny/base8": (8, None), SMALL_SR: (16, 8), "tiny/sr16": (16, 8), "tiny/sr32": (16, 8)}


def make_batch(name: str, *, size: int = 8, seed: int = 0) -> Batch:
    """`size` examples for the config of this name."""
    draw = np.random.default_rng(seed)
    side, low = SIDES[name]
    mask = np.arange(24)[None] < draw.integers(1, 24, size)[:, None]
    return Batch(
        pixels=draw.integers(0, 256, (size, side, side, 3), np.uint8),
        low_pixels=draw.integers(0, 256, (size, low, low, 3), np.uint8) if low else None,
        text=(draw.standard_normal((size, 24, 64)) * mask[..., None]).astype(np.float32),
        text_mask=mask,
        index=np.arange(size, dtype=np.int32),
    )
