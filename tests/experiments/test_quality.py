"""Quality of images, and the sheet they are shown on."""

from pathlib import Path

import numpy as np
import pytest
from lib import image_table, scoring
from PIL import Image


@pytest.fixture(scope="module")
def judge() -> scoring.Judge:
    return scoring.make_judge("shapes/full", size=16, count=40, others=60, seed=1)


def test_real_pictures_are_right_unsaturated_and_at_the_floor(judge) -> None:
    scores = judge.measure(judge.exam.real)
    assert scores["all"] > 0.97
    assert scores["saturated"] == 0
    assert scores["frechet"] == judge.reference.floor


def test_wrong_captions_and_clipped_colours_show(judge) -> None:
    wrong = judge.measure(judge.exam.real[::-1])
    assert wrong["all"] < 0.2
    clipped = np.where(judge.exam.real > 128, 255, 0).astype(np.uint8)
    half = np.where(np.arange(16)[:, None, None] < 8, clipped, judge.exam.real)
    scores = judge.measure(half)
    assert scores["saturated"] == 0.5
    assert scores["frechet"] > 1.5 * judge.reference.floor


def test_distances_are_measured_from_other_images() -> None:
    as_many = scoring.make_judge("shapes/full", size=16, count=20, others=20, seed=1)
    assert as_many.reference.floor > 1


def test_shown_captions_are_of_both_kinds(judge) -> None:
    shown = range(len(judge.exam.captions))[judge.shown(4)]
    assert len(shown) == 4
    assert len(set(shown) & set(judge.exam.kinds()["one"])) == 2


def test_pictures_below_what_the_oracle_sees_are_refused() -> None:
    with pytest.raises(ValueError, match="16 px and more, not of 8: choose a later stage"):
        scoring.make_judge("shapes/full", size=8, count=2, others=2, seed=1)


def test_cells_are_percent_and_a_dash_where_nothing_was_judged(judge) -> None:
    found = scoring.quality_cells({"all": 0.5, "frechet": 2.345, "saturated": 0.01, "weight": "3"})
    assert found["all"] == "50.0"
    assert found["fill"] == "-"
    assert found["Fréchet"] == "2.35"
    assert found["at limits"] == "1.00"
    assert set(found) == set(scoring.quality_cells(judge.measure(judge.exam.real)))


def test_a_sheet_shows_each_picture_in_its_place(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    small = np.broadcast_to(values[0, :, None, None, None], (3, 8, 8, 3))
    large = np.broadcast_to(values[1, :, None, None, None], (3, 64, 64, 3))
    image_table.save_table(
        tmp_path / "sheet.png", {"a": small, "b": large}, ["one", "two", "three"], side=32
    )
    with Image.open(tmp_path / "sheet.png") as opened:
        pixels = np.asarray(opened)
    top = pixels.shape[0] - 2 * (32 + image_table.GAP)
    for row in range(2):
        for column in range(3):
            y, x = (
                top + row * (32 + image_table.GAP),
                image_table.MARGIN + column * (32 + image_table.GAP),
            )
            assert (pixels[y : y + 32, x : x + 32] == values[row, column]).all()
    assert (pixels[:, : image_table.MARGIN] < 100).any()  # names of the rows
    assert (pixels[:top, image_table.MARGIN :] < 100).any()  # captions


def test_a_long_caption_is_broken_into_lines(tmp_path: Path) -> None:
    images = np.full((1, 8, 8, 3), 255, np.uint8)
    heights = []
    for words in ("short", "a very long caption of many words " * 2):
        image_table.save_table(tmp_path / "sheet.png", {"": images}, [words], side=64)
        with Image.open(tmp_path / "sheet.png") as opened:
            heights.append(opened.height)
            assert opened.width == image_table.MARGIN + 64 + image_table.GAP
    assert heights[1] > heights[0] + 3 * image_table.LINE
