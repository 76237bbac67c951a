"""Packages and fonts of emoji that strangers made, or that are not there: one sentence each."""

import struct
from pathlib import Path

import emoji_packages
import pytest

from imagen_jax.data.synthetic.emoji import (
    emoji_font,
    emoji_names,
    image_sets,
    set_readers,
    styles_dataset,
    svg_images,
)


def test_sets_without_a_known_emoji_are_refused(tmp_path: Path) -> None:
    (picture,) = list(emoji_packages.pictures(["🐙"]).values())[1:]
    place = emoji_packages.write_folder(tmp_path, {"assets/ffffff.png": picture})
    sets = {name: set_readers.read_set(place) for name in ("twemoji", "openmoji")}
    with pytest.raises(ValueError, match="twemoji, openmoji have no image of a known emoji: give"):
        styles_dataset.draw_sets(sets, emoji_names.known_emoji())


def test_a_package_in_nobodys_home_is_told() -> None:
    with pytest.raises(ValueError, match=r"~nobody-x/a: ~nobody-x is nobody's home here"):
        image_sets.open_sets(("openmoji=~nobody-x/a", "twemoji=~nobody-x/b"))


BOX = (0.0, 0.0, 36.0, 36.0)


@pytest.mark.parametrize("magic", [b"wOFF", b"wOF2"])
def test_fonts_of_the_web_are_refused(tmp_path: Path, magic: bytes) -> None:
    file = tmp_path / "a.ttf"
    file.write_bytes(magic + struct.pack(">4sIH", b"\0\1\0\0", 200, 1) + bytes(200))
    with pytest.raises(ValueError, match=r"a\.ttf is a font of the web \(WOFF\): give it as"):
        emoji_font.read_font(file)


@pytest.mark.parametrize(
    "body",
    [
        '<path d="M0 0H100000" stroke-dasharray="0.11"/>',
        '<g stroke-dasharray=".001 .001"><path d="M0 0H36M0 1H36"/></g>',
        '<path d="M0 0H36" style="stroke:red;Stroke-DashArray: 1e-9"/>',
        '<g id="a"><path d="M0 0H999"/></g><use href="#a" stroke-dasharray="0.01"/>',
    ],
)
def test_dashes_that_take_long_are_refused(body: str) -> None:
    with pytest.raises(ValueError, match="its strokes may have more than 200,000 dashes"):
        svg_images.draw_body(body, BOX, side=128)


def test_dashes_of_drawings_are_drawn() -> None:
    pytest.importorskip("resvg_py")
    line = '<path d="M2 18H34" stroke="red" stroke-width="4" {}/>'
    drawn = {
        dashes: svg_images.draw_body(line.format(dashes), BOX, side=128)
        for dashes in ("", 'stroke-dasharray="2,2px"', 'stroke-dasharray="none"')
    }
    plain, dashed, none = drawn.values()
    assert (plain == none).all()
    assert (plain != dashed).any()
    with pytest.raises(ValueError, match="has dashes of '1%': give numbers"):
        svg_images.draw_body(line.format('stroke-dasharray="1%"'), BOX, side=128)
