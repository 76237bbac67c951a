"""Folders of a benchmark's images that strangers began: nothing in them runs or is waited for."""

import os
from pathlib import Path

import pytest
from PIL import Image

from imagen_jax.evaluate import layouts
from imagen_jax.evaluate.prompt_file import PromptSet

PROMPTS = PromptSet(("a",), "0" * 64, names=("a",), records=('{"prompt": "a"}',))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("content", [EPS, b"", b"\x89PNG\r\n\x1a\n", b"II*\0" + bytes(99)])
def test_a_grid_is_made_of_images_alone(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would give EPS to Ghostscript, which is a program."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("it runs a program"))
    file = tmp_path / "0000_a.png"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"0000_a\.png: .* are no complete image.*: delete the"):
        layouts.write("dpg", tmp_path / "dpg", PROMPTS, [file], 1)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a\x1b[2J", r"a name of its prompts' files is 'a\\x1b\[2J', which has control characters"),
        ("a\nb", "which has control characters"),
        ("é" * 101, "of a prompt's file has 202 bytes, more than 200: rename it"),
    ],
)
def test_names_that_no_grid_may_have_are_refused_before_sampling(name: str, says: str) -> None:
    prompts = PromptSet(("a", "b"), "0" * 64, names=("whole", name))
    with pytest.raises(ValueError, match=says):
        layouts.check("dpg", prompts, 1)
    layouts.check("dpg", PromptSet(("a",), "0" * 64, names=("é" * 100,)), 1)


@pytest.mark.parametrize("layout", ["dpg", "geneval"])
def test_a_pipe_or_a_device_in_place_of_an_image_is_refused(tmp_path: Path, layout) -> None:
    file = tmp_path / "0000_a.png"
    os.mkfifo(file)
    with pytest.raises(OSError, match=r"0000_a\.png is no file, but a pipe"):
        layouts.write(layout, tmp_path / layout, PROMPTS, [file], 1)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=r"0000_a\.png is no file, but a device"):
        layouts.write(layout, tmp_path / layout, PROMPTS, [file], 1)


def test_images_are_laid_out(tmp_path: Path) -> None:
    file = tmp_path / "0000_a.png"
    Image.new("RGB", (8, 8), "red").save(file)
    layouts.write("dpg", tmp_path / "dpg", PROMPTS, [file], 1)
    layouts.write("geneval", tmp_path / "geneval", PROMPTS, [file], 1)
    assert Image.open(tmp_path / "dpg" / "a.png").getpixel((0, 0)) == (255, 0, 0)
    copied = tmp_path / "geneval" / "00000" / "samples" / "0000.png"
    assert copied.read_bytes() == file.read_bytes()
