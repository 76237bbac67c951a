"""Fonts whose tables share parts, so that few bytes unpack to very many: refused at once."""

import struct
from pathlib import Path

import emoji_font_file
import pytest

from imagen_jax.data.synthetic.emoji import emoji_font, font_tables


class _Font(dict):
    @property
    def reader(self) -> dict:
        return self


def test_ranges_of_bitmaps_that_share_a_table_are_refused() -> None:
    ranges = struct.pack(">HHI", 0, 65535, 8) * 300
    strike = struct.pack(">IIII", 56, len(ranges), 300, 0) + bytes(32)
    table = struct.pack(">II", 0x30000, 1) + strike + ranges
    with pytest.raises(ValueError, match="it has more than 200,000 places of bitmaps"):
        font_tables.check_tables(_Font(CBLC=table))


def test_ligatures_that_share_parts_are_refused() -> None:
    sets, each = 3000, 10_000
    ligature = struct.pack(">HHH", 1, 2, 1)
    shared = struct.pack(f">H{each}H", each, *[2 + 2 * each] * each) + ligature
    table = struct.pack(">HHH", 1, 0, sets) + struct.pack(">H", 6 + 2 * sets) * sets + shared
    lookup = struct.pack(">HHHH", 4, 0, 1, 8) + table
    gsub = struct.pack(">HHHHHHH", 1, 0, 0, 0, 10, 1, 4) + lookup
    with pytest.raises(ValueError, match="it has more than 500,000 glyphs in ligatures"):
        font_tables.check_tables(_Font(GSUB=gsub))


def test_a_font_is_read(tmp_path: Path) -> None:
    file = emoji_font_file.write(tmp_path / "a.ttf", emoji_font_file.bitmaps())
    assert len(emoji_font.read_font(file).bitmaps) == 10
