"""The encoder that learned nothing: an ordinary checkpoint, the same for the same seed."""

from pathlib import Path

import numpy as np
from lib import random_encoder

from imagen_jax.text.encoder import TextEncoder

CAPTIONS = ["a red circle above a blue square", "a blue circle above a red square"]


def test_it_is_loaded_like_any_other(tmp_path: Path) -> None:
    like = TextEncoder.load("t5_1_1_tiny", max_length=32)
    folders = [
        random_encoder.write(tmp_path / name, like, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    one, same, other = (TextEncoder.load(str(folder), max_length=32) for folder in folders)
    assert one.config == like.config
    assert one.tokenizer.model == like.tokenizer.model
    assert one.identity == same.identity
    assert len({one.identity, other.identity, like.identity}) == 3
    text, mask = one.encode(CAPTIONS)
    learned, _ = like.encode(CAPTIONS)
    assert np.abs(text - learned)[mask].mean() > 0.1
    # Attention lets each word know of the others: "circle" differs by what stands around it.
    np.testing.assert_array_equal(mask[0], mask[1])
    circle = like.tokenizer.processor.encode(CAPTIONS[0], out_type=str).index("▁circle")
    assert np.abs(text[0, circle] - text[1, circle]).max() > 1e-3


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    like = TextEncoder.load("t5_1_1_tiny", max_length=32)
    file = random_encoder.write(tmp_path, like, seed=0) / "checkpoint_0" / "checkpoint"
    before = file.stat().st_mtime_ns
    random_encoder.write(tmp_path, like, seed=0)
    assert file.stat().st_mtime_ns == before
    assert [p.name for p in file.parent.iterdir()] == ["checkpoint"]
