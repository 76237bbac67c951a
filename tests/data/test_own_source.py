"""The guide's source, a class of the user's own, becomes a store that training reads."""

import re
from pathlib import Path

import numpy as np
import pytest
from jpegs import photo

from imagen_jax import config
from imagen_jax.data import pipeline
from imagen_jax.data.sources.base import Source
from imagen_jax.data.sources.mixture import Mixture
from imagen_jax.data.store import fit

GUIDE = Path(__file__).parent.parent.parent / "docs/guides/data-sources.md"
CAPTIONS = ("a red boat", "two cats", "the sea at night")


def test_a_class_of_ones_own_is_encoded_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for seed, caption in enumerate(CAPTIONS):
        file = tmp_path / "photos" / f"{caption.replace(' ', '_')}.jpg"
        file.write_bytes(photo((96, 64 + seed), seed=seed))
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    exec(code, found)
    assert isinstance(found["photos"], Source)
    assert len(Mixture((found["photos"],) * 2, (1.0, 1.0))) == 2 * len(CAPTIONS)
    records = found["store"].source()
    captions = [records[index].captions for index in range(len(records))]
    assert sorted(captions) == sorted((caption,) for caption in CAPTIONS)
    experiment = config.Experiment(
        stage=config.Stage(name="a", size=64, model=config.UNet()), data=config.Data(dataset="x")
    )
    fit.check_store(found["store"], experiment=experiment)
    ordered = pipeline.load_examples(found["store"], stage=experiment.stage, seed=0)
    share = pipeline.ProcessRows.whole(3)
    batch, lost = pipeline.load_batches(ordered, max_length=32, share=share)[0]
    assert batch.pixels.shape == (3, 64, 64, 3)
    assert len({pixels.tobytes() for pixels in batch.pixels}) == 3
    np.testing.assert_array_equal(lost, [])
