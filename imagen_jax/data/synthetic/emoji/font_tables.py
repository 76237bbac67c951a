"""Sizes of a font's tables, counted before they are parsed: parts of them may share others.

Source: OpenType 1.9.1, tables CBLC and GSUB.
"""

import struct
from collections.abc import Iterator
from typing import Any

MOST_BITMAPS = 200_000  # places of bitmaps in all sizes; Noto has 4,000
MOST_LIGATURES = 500_000  # glyphs of all ligatures; Noto has 20,645
LIGATURES, EXTENSION = 4, 7  # types of lookups


def check_tables(font: Any) -> None:
    """Refuse tables that unpack to too much. Errors: ValueError; struct.error for damage."""
    if "CBLC" in font:
        _check(_bitmaps(font.reader["CBLC"]), MOST_BITMAPS, "places of bitmaps")
    if "GSUB" in font:
        _check(_ligatures(font.reader["GSUB"]), MOST_LIGATURES, "glyphs in ligatures")


def _check(counts: Iterator[int], most: int, what: str) -> None:
    total = 0
    for count in counts:
        total += count
        if total > most:
            raise ValueError(f"it has more than {most:,} {what}")


def _bitmaps(table: bytes) -> Iterator[int]:
    (strikes,) = struct.unpack_from(">I", table, 4)
    for number in range(strikes):
        start, _, parts = struct.unpack_from(">III", table, 8 + 48 * number)
        for part in range(parts):
            first, last = struct.unpack_from(">HH", table, start + 8 * part)
            yield max(last - first, 0) + 1


def _words(table: bytes, place: int) -> tuple[int, ...]:
    """A count and as many numbers behind it."""
    (count,) = struct.unpack_from(">H", table, place)
    return struct.unpack_from(f">{count}H", table, place + 2)


def _ligatures(table: bytes) -> Iterator[int]:
    (lookups,) = struct.unpack_from(">H", table, 8)
    for offset in _words(table, lookups) if lookups else ():
        lookup = lookups + offset
        (kind,) = struct.unpack_from(">H", table, lookup)
        for inner in _words(table, lookup + 4):
            yield 1
            place, own = lookup + inner, kind
            if kind == EXTENSION:
                _, own, further = struct.unpack_from(">HHI", table, place)
                place += further
            if own == LIGATURES:
                yield from _sets(table, place)


def _sets(table: bytes, place: int) -> Iterator[int]:
    for offset in _words(table, place + 4):
        yield 1
        for ligature in _words(table, place + offset):
            yield 1 + struct.unpack_from(">H", table, place + offset + ligature + 2)[0]
