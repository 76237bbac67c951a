"""Grids of any prompts stay readable and small; files have names of any script."""

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from any_characters import CHARACTERS
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagen_jax.cli.output import Output
from imagen_jax.io import image_grid

WHITE = np.full((4, 4, 3), 255, np.uint8)
SIDE = 64
CHINESE = "红色的圆在蓝色的方块上面" * 5


def _ink(sheet: Image.Image, column: int, *, side: int) -> np.ndarray:
    """Whether pixels of a column's strip, from below its picture on, are dark."""
    step = side + image_grid.MARGIN
    pixels = np.asarray(sheet.convert("L"))[image_grid.MARGIN + side + 1 :]
    return pixels[:, image_grid.MARGIN + column * step :][:, :step] < 100


@pytest.mark.parametrize(
    "caption", [CHINESE, "a" * 300, "word " * 200, "a red circle " + "x" * 90, "圆 " * 80]
)
def test_a_caption_stays_below_its_own_picture(caption: str) -> None:
    sheet = image_grid.draw_grid([WHITE] * 3, [caption, "", ""], side=SIDE)
    assert _ink(sheet, 0, side=SIDE).any()
    assert not _ink(sheet, 1, side=SIDE).any()
    assert not _ink(sheet, 0, side=SIDE)[:, SIDE + image_grid.MARGIN // 2 :].any()


def test_one_long_prompt_does_not_stretch_the_grid() -> None:
    short = image_grid.draw_grid([WHITE] * 121, ["a"] * 121)
    begun = time.perf_counter()
    for long in ("a red circle " * 800, "x" * 10_000, CHINESE * 200):
        sheet = image_grid.draw_grid([WHITE] * 121, [long] + ["a"] * 120)
        assert sheet.width == short.width
        assert sheet.height < 2 * short.height
    assert time.perf_counter() - begun < 20


def test_a_caption_that_is_cut_ends_with_an_ellipsis() -> None:
    font = image_grid._font(SIDE)
    lines = image_grid._wrap("word " * 100, font, SIDE)
    assert len(lines) == image_grid.LINES
    assert lines[-1].endswith(image_grid.ELLIPSIS)
    assert image_grid._wrap("a red circle", image_grid._font(192), 192) == ["a red circle"]


@pytest.mark.parametrize("letters", ["é", "ß", "ñ", "ł", "Д", "Ω", "→", "€", "e\u0301"])
def test_letters_are_no_boxes(letters: str) -> None:
    def drawn(caption: str) -> bytes:
        return image_grid.draw_grid([WHITE], [caption], side=SIDE).tobytes()

    assert drawn(letters) not in (drawn("\uffff"), drawn(""), drawn("\ufffe"))
    font = image_grid._font(SIDE)
    assert font.getmask(letters[0]).getbbox() is not None
    assert bytes(font.getmask(letters[-1])) != bytes(font.getmask("\ufffe"))


@pytest.mark.parametrize(
    ("caption", "shown"),
    [
        ("café, déjà vu", "café, déjà vu"),
        ("红 circle", r"\u7ea2 circle"),
        ("🔴", r"\U0001f534"),
        ("cafe\u0301\n", "café\n"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_letters_that_the_font_lacks_are_escaped(caption: str, shown: str) -> None:
    assert image_grid._drawable(caption) == shown
    assert (
        image_grid.draw_grid([WHITE], [caption]).size == image_grid.draw_grid([WHITE], [shown]).size
    )


@given(st.text(max_size=60), st.integers(20, 200))
def test_no_line_is_wider_than_its_picture(text: str, width: int) -> None:
    font = image_grid._font(192)
    lines = image_grid._wrap(text, font, width)
    assert len(lines) <= image_grid.LINES
    assert all(font.getlength(line) <= width for line in lines if len(line) > 1)
    if len("".join(text.split())) * 40 <= width:
        assert "".join(lines).replace(" ", "") == "".join(text.split())


def test_of_many_pictures_the_first_are_shown() -> None:
    sheet = image_grid.draw_grid([WHITE] * 10_000, ["a"] * 10_000)
    assert sheet.width * sheet.height <= image_grid.MAX_PIXELS * 1.1
    assert image_grid.count_that_fits(10_000) == image_grid.MOST
    assert image_grid.count_that_fits(10_000, side=1024) < image_grid.MOST
    assert image_grid.count_that_fits(3, side=1 << 14) == 1
    assert image_grid.count_that_fits(7) == 7


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("A red circle, above: a BLUE square!", "a-red-circle-above-a-blue-square"),
        ("红色的圆", "红色的圆"),
        ("красный круг", "красный-круг"),
        ("लाल वृत्त", "लाल-वृत्त"),
        ("cafe\u0301", "café"),
        ("🔴", "large-red-circle"),
        ("{", "left-curly-bracket"),
        ("", "no-text"),
        ("  ", "no-text"),
        ("../../etc/passwd", "etc-passwd"),
        ("a_b", "a-b"),
        ("\ue000", "signs"),
    ],
)
def test_files_keep_letters_of_any_script(prompt: str, slug: str) -> None:
    assert image_grid.file_name(3, prompt) == f"0003_{slug}.png"


@given(st.text(CHARACTERS, max_size=200))
def test_any_prompt_gives_a_file(prompt: str) -> None:
    name = image_grid.file_name(12345, prompt)
    assert len(os.fsencode(name)) <= 140
    assert Path(name).name == name
    assert name.isprintable()


def test_files_of_one_prompt_differ(tmp_path: Path) -> None:
    pictures = np.stack([WHITE] * 3)
    odd = os.fsdecode(b"caf\xe9.png")
    output = Output(tmp_path, ["红", "红", ""], first_index=0, metadata={"low_res": odd})
    output.write(0, pictures)
    output.finish()
    names = {"0000_红.png", "0001_红.png", "0002_no-text.png", "grid.png", "metadata.json"}
    assert {file.name for file in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "metadata.json").read_bytes())["low_res"] == odd


def test_metadata_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the same command, given again, took its own folder for another program's."""

    def half(descriptor: int, mode: str) -> None:
        os.write(descriptor, b'{"prompts')
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    images = np.zeros((1, 8, 8, 3), np.uint8)
    output = Output(tmp_path, ["a"], first_index=0, metadata={})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", half)
        with pytest.raises(OSError, match="No space"):
            output.write(0, images)
    Output(tmp_path, ["a"], first_index=0, metadata={}).write(0, images)
    assert json.loads((tmp_path / "metadata.json").read_text())["complete"] is False


@pytest.mark.parametrize("name", ["grid.png", "metadata.json", "0000_a.png"])
def test_folders_under_the_names_of_images_are_found_before_sampling(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} is a folder, and a file of that name is to be"):
        Output(tmp_path, ["a"], first_index=0, metadata={})
