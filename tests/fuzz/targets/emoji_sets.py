"""Packages with pictures of emoji: tars and folders of npm, SVG, keywords."""

import io
from pathlib import Path

import emoji_packages
from fuzz.mutator import Files
from fuzz.target import Target
from PIL import Image

from imagen_jax.data.synthetic.emoji import annotations, set_readers, svg_images

EMOJI = ("🐙", "❤️", "1️⃣")
DRAWING = (
    '<defs><linearGradient id="a"><stop offset="0" stop-color="#f00"/></linearGradient>'
    '<clipPath id="b"><circle r="9" cx="9" cy="9"/></clipPath><g id="c"><path d="M0 0h9v9z"/></g>'
    '</defs><g clip-path="url(#b)" fill="url(#a)"><use href="#c" transform="scale(.5)"/></g>'
)


def _folders(_: Path) -> list[Files]:
    """With a picture in WebP, and an icon that is a view of another."""
    webp = io.BytesIO()
    Image.new("RGBA", (256, 256), "red").save(webp, "WEBP")
    pictures = emoji_packages.pictures(EMOJI[:2]) | {"assets/0031-20e3.webp": webp.getvalue()}
    icons = emoji_packages.icons(EMOJI)
    views = b', "aliases": {"icon-9": {"parent": "icon-0", "hFlip": true, "rotate": 1}}}'
    icons["icons.json"] = icons["icons.json"][:-1] + views
    icons["chars.json"] = icons["chars.json"].replace(b"icon-2", b"icon-9")
    return [pictures, icons]


def _tars(scratch: Path) -> list[Files]:
    scratch.mkdir(parents=True, exist_ok=True)
    place = scratch / "emoji.tgz"
    forms = [(files, mode) for files in _folders(scratch) for mode in ("w", "w:gz")]
    return [
        {"p.tgz": emoji_packages.write_tar(place, files, mode=mode).read_bytes()}
        for files, mode in forms
    ]


def _drawings(_: Path) -> list[Files]:
    document = f'<svg xmlns="{svg_images.NAMESPACE}" viewBox="0 0 18 18">{DRAWING}</svg>'
    return [{"1f419.svg": document.encode()}]


def _keywords(_: Path) -> list[Files]:
    return [emoji_packages.keywords({"🐙": ["sea", "creature"]})]


def _draw(path: Path) -> None:
    found = set_readers.read_set(path)
    for text in EMOJI:
        pixels = found.pixels(text)
        assert pixels is None or pixels.shape == (128, 128, 3)


def _draw_tar(folder: Path) -> None:
    _draw(folder / "p.tgz")


TARGETS = [
    Target(name="emoji_folder", is_confined=True, corpus=_folders, parse=_draw, is_cheap=False),
    Target(name="emoji_tar", corpus=_tars, parse=_draw_tar, is_cheap=False),
    Target(name="emoji_svg", is_confined=True, corpus=_drawings, parse=_draw, is_cheap=False),
    Target(
        name="emoji_keywords",
        is_confined=True,
        corpus=_keywords,
        parse=annotations.read_annotations,
    ),
]
