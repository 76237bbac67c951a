"""Captions packed end to end into rows of one length, so that padding costs next to nothing.

One compiled program serves captions of every length, and on a TPU a row fills the 128 lanes that
attention over a shorter one would be padded to.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from imagen_jax.text.tokenizer import PAD

ROW = 128  # tokens, or a multiple of it where captions may be longer


class RowSpan(NamedTuple):
    """The place of a caption's tokens: from `start` to before `end` in a row."""

    row: int
    start: int
    end: int


class PackedBatch(NamedTuple):
    """Rows `first` to before `last`, computed as so many: empty ones fill it up."""

    first: int
    last: int
    rows: int


@dataclass(frozen=True)
class PackingPlan:
    """Captions in rows, and rows in batches, as `t5.encode_packed` takes them."""

    tokens: Int32[np.ndarray, "r n"]
    segments: Int32[np.ndarray, "r n"]  # which caption of its row a token belongs to; 0: padding
    places: tuple[RowSpan, ...]  # of every caption, in the order given
    batches: tuple[PackedBatch, ...]

    @property
    def useful(self) -> int:
        """Tokens of captions."""
        return sum(place.end - place.start for place in self.places)

    @property
    def computed(self) -> int:
        """Tokens that are computed, padding included."""
        return sum(batch.rows for batch in self.batches) * self.tokens.shape[1]

    def members(self) -> Iterator[list[int]]:
        """The captions of each batch, by their number."""
        by_row = sorted(range(len(self.places)), key=self.places.__getitem__)
        rows = [self.places[index].row for index in by_row]
        for batch in self.batches:
            yield by_row[
                bisect.bisect_left(rows, batch.first) : bisect.bisect_left(rows, batch.last)
            ]

    def inputs(
        self, batch: PackedBatch
    ) -> tuple[Int32[np.ndarray, "b n"], Int32[np.ndarray, "b n"]]:
        """Tokens and segments of a batch."""
        empty = ((0, batch.rows - (batch.last - batch.first)), (0, 0))
        tokens, segments = (
            np.pad(x[batch.first : batch.last], empty) for x in (self.tokens, self.segments)
        )
        return tokens, segments


def row_length(max_length: int) -> int:
    """The shortest row that holds a caption of so many tokens."""
    return -(-max_length // ROW) * ROW


def plan_rows(
    ragged: Sequence[Sequence[int]], *, length: int, batch_rows: int, devices: int = 1
) -> PackingPlan:
    """Captions' ids in as few rows of `length` as best-fit decreasing finds; ties go by order.

    It depends on the captions alone, not on what was encoded before.
    Errors: ValueError for a caption longer than a row, or batches that the devices do not divide.
    """
    places = _places([len(ids) for ids in ragged], length)
    rows = max((place.row for place in places), default=-1) + 1
    tokens = np.full((rows, length), PAD, np.int32)
    segments = np.zeros((rows, length), np.int32)
    filled = [0] * rows
    for index in sorted(range(len(places)), key=places.__getitem__):
        row, start, end = places[index]
        filled[row] += 1
        tokens[row, start:end] = ragged[index]
        segments[row, start:end] = filled[row]
    return PackingPlan(
        tokens, segments, places, tuple(_batches(rows, size=batch_rows, multiple=devices))
    )


def _batches(rows: int, *, size: int, multiple: int) -> Iterator[PackedBatch]:
    """Cuts rows into batches of `size`; the last is the next power of two times `multiple`.

    So few programs are compiled, and a short rest is not filled up to a whole batch.
    """
    if size < 1 or size % multiple:
        raise ValueError(f"batches of {size} rows do not divide over {multiple} devices")
    for first in range(0, rows, size):
        last = min(first + size, rows)
        shares = -(-(last - first) // multiple)
        yield PackedBatch(first, last, min(size, multiple * (1 << (shares - 1).bit_length())))


def _places(lengths: Sequence[int], length: int) -> tuple[RowSpan, ...]:
    """Best-fit decreasing: each caption into the fullest row that still has room for it."""
    longest = max(lengths, default=0)
    if longest > length:
        raise ValueError(f"a caption of {longest} tokens does not fit a row of {length}")
    rooms: list[list[int]] = [[] for _ in range(length + 1)]  # rows by the tokens that still fit
    free = 0  # bit r: there are rows with room for exactly r tokens
    places: list[RowSpan | None] = [None] * len(lengths)
    rows = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        need = lengths[index]
        fitting = free >> need
        if fitting:
            room = need + (fitting & -fitting).bit_length() - 1
            row = rooms[room].pop()
            free &= ~(1 << room) if not rooms[room] else -1
        else:
            room, row, rows = length, rows, rows + 1
        start = length - room
        places[index] = RowSpan(row, start, start + need)
        rooms[room - need].append(row)
        free |= 1 << (room - need)
    return tuple(place for place in places if place is not None)


def rows_by_length(
    ragged: Sequence[Sequence[int]], *, step: int, most: int
) -> dict[int, list[int]]:
    """Captions by the length that they are padded to: a multiple of `step`, and `most` at most."""
    found: dict[int, list[int]] = {}
    for row, ids in enumerate(ragged):
        found.setdefault(min(-(-len(ids) // step) * step, most), []).append(row)
    return found


def power_of_two(number: int) -> int:
    """The next one, so that batches of many sizes share few compilations."""
    return 1 << (number - 1).bit_length()
