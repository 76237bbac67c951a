"""The cache: ann image is sampled once, and again as soon as anything it depends on changes."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from lib.image_cache import ImageCache

from imagen_jax.imagen import Imagen

CAPTIONS = ["a red circle on a white background", "a blue star on a black background"]


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(folder=tmp_path / "kept", seed=0, batch_size=8)


def test_pictures_are_those_of_the_cascade_and_painted_once(tiny, cache, monkeypatch) -> None:
    sampled = cache.sample(tiny, CAPTIONS, last_stage="sr16")
    expected = tiny.sample(CAPTIONS, seed=0, last_stage="sr16", batch_size=8)["sr16"]
    np.testing.assert_array_equal(sampled, expected)
    monkeypatch.setattr(Imagen, "sample", None)  # a second sampling would fail
    again = ImageCache(folder=cache.folder, seed=0, batch_size=8)
    np.testing.assert_array_equal(again.sample(tiny, CAPTIONS, last_stage="sr16"), expected)
    assert [f.suffixes for f in cache.folder.iterdir()] == [[".npz"]]  # nothing half written


def test_what_a_picture_depends_on_names_its_file(tiny, cache, monkeypatch) -> None:
    shown = []

    def paint(imagen: Imagen, captions: list[str], **options: object) -> dict[str, np.ndarray]:
        shown.append((captions, options))
        return {str(options["last_stage"]): np.full((2, 8, 8, 3), len(shown), np.uint8)}

    monkeypatch.setattr(Imagen, "sample", paint)
    other = jax.tree.map(lambda p: p + 1, tiny.stages[0].params)
    retrained = dataclasses.replace(tiny.stages[0], params=other)
    low = np.zeros((2, 8, 8, 3), np.uint8)
    alone = dataclasses.replace(tiny, stages=tiny.stages[1:])
    variants = [
        lambda: cache.sample(tiny, CAPTIONS, last_stage="base8"),
        lambda: cache.sample(tiny, CAPTIONS, last_stage="sr16"),
        lambda: cache.sample(tiny, CAPTIONS[::-1], last_stage="base8"),
        lambda: dataclasses.replace(cache, seed=1).sample(tiny, CAPTIONS, last_stage="base8"),
        lambda: cache.sample(
            tiny.with_sampler({"guidance_weight": 9.0}), CAPTIONS, last_stage="base8"
        ),
        lambda: cache.sample(
            dataclasses.replace(tiny, stages=(retrained, *tiny.stages[1:])),
            CAPTIONS,
            last_stage="base8",
        ),
        lambda: cache.sample(alone, CAPTIONS, last_stage="sr16", low_res=low),
        lambda: cache.sample(alone, CAPTIONS, last_stage="sr16", low_res=low + np.uint8(1)),
    ]
    values = [int(variant()[0, 0, 0, 0]) for variant in variants]
    assert values == list(range(1, len(variants) + 1))
    assert [int(variant()[0, 0, 0, 0]) for variant in variants] == values
    # A later stage does not matter to an earlier one's images.
    changed = tiny.with_sampler({"steps": 7}, stage="sr16")
    assert cache.sample(changed, CAPTIONS, last_stage="base8")[0, 0, 0, 0] == 1


def test_an_unknown_stage_is_refused(tiny, cache) -> None:
    with pytest.raises(ValueError, match="no stage 'sr99'"):
        cache.sample(tiny, CAPTIONS, last_stage="sr99")
