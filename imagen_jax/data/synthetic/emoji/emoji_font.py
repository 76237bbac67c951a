"""The coloured bitmaps of an emoji font (OpenType tables CBDT and CBLC), by emoji.

Source: OpenType 1.9.1, tables cmap, GSUB, CBLC and CBDT.
"""

import hashlib
import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fontTools.ttLib import TTFont, TTLibError

from imagen_jax.data.synthetic.emoji import font_tables
from imagen_jax.io import whole_files

NOTO = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")  # where Debian's package puts it
VARIATION = "\ufe0f"  # asks for the coloured form, which is the only one here
PNG = b"\x89PNG\r\n\x1a\n"  # a font may hold grey bitmaps besides
LIGATURES, EXTENSION = 4, 7  # types of GSUB lookups
# What fontTools raises about tables that were cut short or make no sense.
BROKEN = (
    *(TTLibError, AssertionError, LookupError, ValueError, TypeError, AttributeError),
    *(ArithmeticError, RecursionError, NotImplementedError, struct.error),
)
COMPRESSED = (b"wOFF", b"wOF2")  # fonts of the web, which unpack to any size


@dataclass(frozen=True)
class Font:
    """A font's bitmaps, and the ways from an emoji to one of them."""

    digest: str  # of the file
    glyphs: Mapping[int, str]  # by code point
    ligatures: Mapping[tuple[str, ...], str]  # the glyph that stands for several
    bitmaps: Mapping[str, bytes]  # PNG by glyph, of the largest size that the font has

    def bitmap(self, emoji: str) -> bytes | None:
        """The PNG of an emoji that the font draws as one glyph, with or without its FE0F."""
        glyphs = tuple(self.glyphs.get(ord(c), "") for c in emoji if c != VARIATION)
        glyph = glyphs[0] if len(glyphs) == 1 else self.ligatures.get(glyphs, "")
        return self.bitmaps.get(glyph)


def read_font(path: Path | str) -> Font:
    """The font in a file.

    Errors: FileNotFoundError where there is none; ValueError for a file that is no font, was cut
    short, or has no bitmaps of this kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no emoji font {path}: install the Debian package fonts-noto-color-emoji, or name a "
            "font with --font"
        )
    data = whole_files.read_whole(path)
    if data.startswith(COMPRESSED):
        raise ValueError(f"{path} is a font of the web (WOFF): give it as .ttf, unpacked")
    try:
        with TTFont(io.BytesIO(data), lazy=True) as font:
            font_tables.check_tables(font)
            glyphs, ligatures = font.getBestCmap() or {}, _ligatures(font)
            bitmaps = _bitmaps(font) if "CBDT" in font and "CBLC" in font else {}
    except BROKEN as error:
        raise ValueError(f"{path} is no font that can be read: {error!r}") from error
    if not bitmaps:
        raise ValueError(
            f"font {path} has no coloured bitmaps (tables CBDT and CBLC): take NotoColorEmoji.ttf "
            "of the Debian package fonts-noto-color-emoji"
        )
    return Font(hashlib.sha256(data).hexdigest(), glyphs, ligatures, bitmaps)


def _bitmaps(font: TTFont) -> dict[str, bytes]:
    strikes = zip(font["CBLC"].strikes, font["CBDT"].strikeData, strict=True)
    _, largest = max(strikes, key=lambda strike: strike[0].bitmapSizeTable.ppemY)
    images = {name: getattr(glyph, "imageData", b"") for name, glyph in largest.items()}
    return {name: data for name, data in images.items() if data.startswith(PNG)}


def _ligatures(font: TTFont) -> dict[tuple[str, ...], str]:
    """Sequences of glyphs that `ccmp`, which every shaper applies, makes one; the first counts."""
    found: dict[tuple[str, ...], str] = {}
    for table in _ligature_tables(font):
        for first, ligatures in table.ligatures.items():
            for ligature in ligatures:
                found.setdefault((first, *ligature.Component), ligature.LigGlyph)
    return found


def _ligature_tables(font: TTFont) -> Iterator[Any]:
    gsub = font["GSUB"].table if "GSUB" in font else None
    if gsub is None or gsub.FeatureList is None or gsub.LookupList is None:
        return
    features = [r.Feature for r in gsub.FeatureList.FeatureRecord if r.FeatureTag == "ccmp"]
    for index in sorted({i for feature in features for i in feature.LookupListIndex}):
        for table in gsub.LookupList.Lookup[index].SubTable:
            inner = table.ExtSubTable if table.LookupType == EXTENSION else table
            if inner.LookupType == LIGATURES:
                yield inner
