"""A font of a few emoji with bitmaps in CBDT, made with fontTools: for tests of what reads one."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from fontTools.ttLib.tables.E_B_L_C_ import (
    BitmapSizeTable,
    SbitLineMetrics,
    Strike,
    eblc_index_sub_table_1,
)
from PIL import Image

VARIATION = "\ufe0f"
# One of each kind: single ones, a toned one, ligatures by joiner, of flags and of keycaps.
EMOJI = ("🐙", "❤️", "👍", "👍🏽", "👩🏽‍🚀", "👩🏿‍🚀", "🇳🇴", "🇸🇯", "1️⃣", "🥑")


def bitmap(number: int, *, size: tuple[int, int] = (136, 128)) -> Image.Image:
    """A picture of its own for each number, clear towards its border and half clear inside."""
    width, height = size
    pixels = np.zeros((height, width, 4), np.uint8)
    inner = pixels[8 : height - 8, 12 : width - 12]
    inner[...] = np.random.default_rng(number).integers(0, 256, inner.shape)
    inner[: len(inner) // 2, :, 3] = 255
    return Image.fromarray(pixels)


def bitmaps() -> dict[str, bytes]:
    """A bitmap for each of EMOJI; Svalbard's flag is Norway's."""
    made = {text: png(bitmap(number)) for number, text in enumerate(EMOJI)}
    return {**made, "🇸🇯": made["🇳🇴"]}


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def write(path: Path, bitmaps: Mapping[str, bytes]) -> Path:
    """A font with these bitmaps by emoji; sequences are ligatures of the feature `ccmp`."""
    sequences = {text: text.replace(VARIATION, "") for text in bitmaps}
    singles = sorted({c for bare in sequences.values() for c in bare})
    glyphs = {c: f"u{ord(c):X}" for c in singles}
    names = {
        text: "_".join(glyphs[c] for c in bare) if len(bare) > 1 else glyphs[bare]
        for text, bare in sequences.items()
    }
    order = [".notdef", *glyphs.values(), *sorted(set(names.values()) - set(glyphs.values()))]
    builder = FontBuilder(1024, isTTF=True)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap({ord(c): glyph for c, glyph in glyphs.items()})
    builder.setupMaxp()
    builder.setupHorizontalMetrics(dict.fromkeys(order, (1275, 0)))
    builder.setupHorizontalHeader(ascent=950, descent=-250)
    builder.setupPost()
    rules = [
        f"sub {' '.join(glyphs[c] for c in bare)} by {names[text]};"
        for text, bare in sequences.items()
        if len(bare) > 1
    ]
    if rules:
        feature = f"feature ccmp {{ {' '.join(rules)} }} ccmp;"
        addOpenTypeFeaturesFromString(builder.font, feature)
    pictures = {names[text]: data for text, data in bitmaps.items()}
    _add_bitmaps(builder, [name for name in order if name in pictures], pictures)
    builder.save(path)
    return path


def _line_metrics() -> SbitLineMetrics:
    line = SbitLineMetrics()
    line.ascender, line.descender, line.widthMax = 101, -27, 136
    line.caretSlopeNumerator = line.caretSlopeDenominator = line.caretOffset = 0
    line.minOriginSB = line.minAdvanceSB = line.maxBeforeBL = line.minAfterBL = 0
    line.pad1 = line.pad2 = 0
    return line


def _add_bitmaps(builder: FontBuilder, names: Sequence[str], pictures: Mapping[str, bytes]) -> None:
    """Tables CBDT and CBLC with one strike of 109 pixels per em."""
    metrics = SmallGlyphMetrics()
    metrics.height, metrics.width = 128, 136
    metrics.BearingX, metrics.BearingY, metrics.Advance = 0, 101, 136
    data, located = newTable("CBDT"), newTable("CBLC")
    data.version = located.version = 3.0
    data.strikeData = [{}]
    for name in names:
        glyph = cbdt_bitmap_format_17(b"", builder.font)
        glyph.metrics, glyph.imageData = metrics, pictures[name]
        data.strikeData[0][name] = glyph
    strike, size = Strike(), BitmapSizeTable()
    for direction in ("hori", "vert"):
        setattr(size, direction, _line_metrics())
    size.colorRef, size.flags, size.bitDepth, size.ppemX, size.ppemY = 0, 1, 32, 109, 109
    size.startGlyphIndex = builder.font.getGlyphID(names[0])
    size.endGlyphIndex = builder.font.getGlyphID(names[-1])
    index = eblc_index_sub_table_1(b"", builder.font)
    index.names, index.indexFormat, index.imageFormat = list(names), 1, 17
    strike.bitmapSizeTable, strike.indexSubTables = size, [index]
    located.strikes = [strike]
    builder.font["CBDT"], builder.font["CBLC"] = data, located
