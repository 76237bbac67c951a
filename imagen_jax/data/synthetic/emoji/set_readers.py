"""Images of a set of emoji, by emoji: from a font, from Iconify's JSON, or from files by code.

Files are named by the code points of their emoji, as `1f353.png` or `1F469-200D-1F680.svg`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from imagen_jax.config.sentences import shorten
from imagen_jax.data.images.decode import RGB
from imagen_jax.data.synthetic.emoji import bitmaps, package_files, svg_images
from imagen_jax.data.synthetic.emoji.bitmaps import SIDE
from imagen_jax.data.synthetic.emoji.emoji_font import VARIATION, Font
from imagen_jax.io import json_reader

ICONS, CHARS, ABOUT = "icons.json", "chars.json", "package.json"
CODES = r"[0-9a-fA-F]{2,6}(?:[-_][0-9a-fA-F]{2,6})*"
WANTED = re.compile(rf"(?:^|/)(?:icons\.json|chars\.json|package\.json|{CODES}\.(?:svg|png|webp))$")
VARIATION_CODE = f"{ord(VARIATION):x}"
CHAIN = 8  # aliases of aliases
REMEDY = "fetch the package again"


@runtime_checkable
class EmojiSet(Protocol):
    """A set's images."""

    @property
    def digest(self) -> str:
        """Of all that they depend on."""

    @property
    def licence(self) -> str:
        """As the package states it; "" where it states none."""

    @property
    def needs_svg(self) -> bool:
        """Whether drawing them takes a renderer of SVG."""

    def pixels(self, text: str) -> RGB | None:
        """An emoji on white, 128 x 128; None where the set lacks it.

        Errors: ValueError for an image that is damaged, too large or no image.
        """


@dataclass(frozen=True)
class FontSet:
    """The bitmaps of a font."""

    font: Font
    licence: str = ""
    needs_svg: bool = False

    @property
    def digest(self) -> str:
        """Of the font's file."""
        return self.font.digest

    def pixels(self, text: str) -> RGB | None:
        """As `EmojiSet.pixels`."""
        bitmap = self.font.bitmap(text)
        return None if bitmap is None else bitmaps.paste_on_white(bitmap)


@dataclass(frozen=True)
class FileSet:
    """Files by the code points of their emoji."""

    files: Mapping[str, tuple[str, bytes]]  # name and content
    digest: str
    licence: str
    needs_svg: bool

    def pixels(self, text: str) -> RGB | None:
        """As `EmojiSet.pixels`."""
        name, data = self.files.get(code_of(text), ("", b""))
        if name.endswith(".svg"):
            return svg_images.draw_svg(_text(data), side=SIDE)
        return bitmaps.paste_on_white(data) if name else None


@dataclass(frozen=True)
class IconSet:
    """Iconify's JSON: bodies of SVG by name, and the names by code points."""

    icons: Mapping[str, Any]  # all of icons.json
    names: Mapping[str, str]
    digest: str
    licence: str
    needs_svg: bool = True

    def pixels(self, text: str) -> RGB | None:
        """As `EmojiSet.pixels`."""
        name = self.names.get(code_of(text))
        return None if name is None else self._draw(name, CHAIN)

    def _draw(self, name: str, chain: int) -> RGB | None:
        """An icon, or the one that it is another view of."""
        icon = _fields(self.icons.get("icons")).get(name)
        if icon is not None:
            return self._draw_body(_fields(icon))
        alias = _fields(_fields(self.icons.get("aliases", {})).get(name, {}))
        parent = alias.get("parent")
        if not isinstance(parent, str) or not chain:
            return None
        drawn = self._draw(parent, chain - 1)
        return None if drawn is None else _turned(drawn, alias)

    def _draw_body(self, icon: Mapping[str, Any]) -> RGB:
        body = icon.get("body")
        sides = [icon.get(s, self.icons.get(s, 16)) for s in ("width", "height")]
        box = [icon.get("left", 0), icon.get("top", 0), *sides]
        if not isinstance(body, str) or not all(type(n) in (int, float) for n in box):
            raise ValueError("its icon has no body and size")
        left, top, width, height = (float(max(min(n, 1e9), -1e9)) for n in box)
        return _turned(svg_images.draw_body(body, (left, top, width, height), side=SIDE), icon)


def code_of(text: str) -> str:
    """An emoji's code points as files are named, without FE0F."""
    return "-".join(f"{ord(c):x}" for c in text if c != VARIATION)


def read_set(path: Path) -> IconSet | FileSet:
    """The images of a package: a tar of npm's registry, or a folder.

    Errors: FileNotFoundError where there is nothing; ValueError for a package without images of
    emoji, or whose files are damaged or too large.
    """
    files = package_files.read_files(path, WANTED)
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name.rpartition('/')[2]} {len(data)} ".encode() + data)
    by_name = {name.rpartition("/")[2]: data for name, data in files.items()}
    licence = _licence(by_name, path)
    images = _by_code(name for name in by_name if not name.endswith(".json"))
    if ICONS in by_name and CHARS in by_name:
        icons, chars = (
            json_reader.parse_object(by_name[name], where=f"{path}/{name}", remedy=REMEDY)
            for name in (ICONS, CHARS)
        )
        names = {normal_code(code): name for code, name in chars.items() if isinstance(name, str)}
        return IconSet(icons, names, digest.hexdigest(), licence)
    if not images:
        raise ValueError(
            f"{path} has no images of emoji, neither {ICONS} with {CHARS} nor files such as "
            "1f353.svg, .png or .webp: give a package that has"
        )
    found = {code: (name, by_name[name]) for code, name in images.items()}
    needs = any(name.endswith(".svg") for name in images.values())
    return FileSet(found, digest.hexdigest(), licence, needs)


def _licence(files: Mapping[str, bytes], path: Path) -> str:
    if ABOUT not in files:
        return ""
    about = json_reader.parse_object(files[ABOUT], where=f"{path}/{ABOUT}", remedy=REMEDY)
    stated = about.get("license", "")
    return stated if isinstance(stated, str) else shorten(stated)


def _by_code(names: Iterable[str]) -> dict[str, str]:
    """Files by code points; of several of one emoji the first."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(normal_code(name.partition(".")[0]), name)
    return found


def normal_code(code: str) -> str:
    """Code points as `code_of` writes them, however a file has them."""
    parts = re.split("[-_]", code.lower())
    return "-".join(part.lstrip("0") for part in parts if part != VARIATION_CODE)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8: {error}") from error


def _turned(pixels: RGB, view: Mapping[str, Any]) -> RGB:
    """Flipped, then turned clockwise, as an icon's fields say."""
    if view.get("hFlip") is True:
        pixels = np.fliplr(pixels)
    if view.get("vFlip") is True:
        pixels = np.flipud(pixels)
    turns = view.get("rotate", 0)
    return np.rot90(pixels, -turns % 4) if type(turns) is int else pixels


def _fields(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"icons.json has {shorten(value)} where fields belong")
    return value
