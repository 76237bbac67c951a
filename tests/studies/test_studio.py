"""The studio: a picture is painted once, and again as soon as anything it depends on changes."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax.imagen import Imagen
from imagen_jax.studies.studio import Studio

CAPTIONS = ["a red circle on a white background", "a blue star on a black background"]


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(folder=tmp_path / "kept", seed=0, batch_size=8)


def test_pictures_are_those_of_the_cascade_and_painted_once(tiny, studio, monkeypatch) -> None:
    painted = studio.paint(tiny, CAPTIONS, until="sr16")
    expected = tiny.paint(CAPTIONS, seed=0, until="sr16", batch_size=8)["sr16"]
    np.testing.assert_array_equal(painted, expected)
    monkeypatch.setattr(Imagen, "paint", None)  # a second painting would fail
    again = Studio(folder=studio.folder, seed=0, batch_size=8)
    np.testing.assert_array_equal(again.paint(tiny, CAPTIONS, until="sr16"), expected)
    assert [f.suffixes for f in studio.folder.iterdir()] == [[".npz"]]  # nothing half written


def test_what_a_picture_depends_on_names_its_file(tiny, studio, monkeypatch) -> None:
    shown = []

    def paint(imagen: Imagen, captions: list[str], **options: object) -> dict[str, np.ndarray]:
        shown.append((captions, options))
        return {str(options["until"]): np.full((2, 8, 8, 3), len(shown), np.uint8)}

    monkeypatch.setattr(Imagen, "paint", paint)
    other = jax.tree.map(lambda p: p + 1, tiny.painters[0].params)
    retrained = dataclasses.replace(tiny.painters[0], params=other)
    low = np.zeros((2, 8, 8, 3), np.uint8)
    alone = dataclasses.replace(tiny, painters=tiny.painters[1:])
    variants = [
        lambda: studio.paint(tiny, CAPTIONS, until="base8"),
        lambda: studio.paint(tiny, CAPTIONS, until="sr16"),
        lambda: studio.paint(tiny, CAPTIONS[::-1], until="base8"),
        lambda: dataclasses.replace(studio, seed=1).paint(tiny, CAPTIONS, until="base8"),
        lambda: studio.paint(tiny.with_sampler({"guidance_weight": 9.0}), CAPTIONS, until="base8"),
        lambda: studio.paint(
            dataclasses.replace(tiny, painters=(retrained, *tiny.painters[1:])),
            CAPTIONS,
            until="base8",
        ),
        lambda: studio.paint(alone, CAPTIONS, until="sr16", low_res=low),
        lambda: studio.paint(alone, CAPTIONS, until="sr16", low_res=low + np.uint8(1)),
    ]
    values = [int(variant()[0, 0, 0, 0]) for variant in variants]
    assert values == list(range(1, len(variants) + 1))
    assert [int(variant()[0, 0, 0, 0]) for variant in variants] == values
    # A later stage does not matter to an earlier one's pictures.
    changed = tiny.with_sampler({"steps": 7}, stage="sr16")
    assert studio.paint(changed, CAPTIONS, until="base8")[0, 0, 0, 0] == 1


def test_an_unknown_stage_is_refused(tiny, studio) -> None:
    with pytest.raises(ValueError, match="no stage 'sr99'"):
        studio.paint(tiny, CAPTIONS, until="sr99")
