"""Closest training images: copying can be told from composing by how near they are."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from imagen_jax.types import Pixels
from lib.image_table import INK, LINE, PAPER

PART = 64  # images compared at once
COLUMNS, WIDTH, THUMB, EDGE = 5, 204, 96, 4  # of the page, in pixels
FONT, LETTERS = 10, 36  # of the text: pixels, letters a line
LINES = 6  # of text under each pair


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """For each image the row of the closest training image, and how far it is.

    Distances are roots of mean squares over pixels and channels, in levels of 255.
    """

    rows: Int64[np.ndarray, " n"]
    distances: Float64[np.ndarray, " n"]


def find_neighbours(
    images: Pixels, training: UInt8[np.ndarray, "m h w 3"], *, leave_out: Sequence[int] = ()
) -> Neighbours:
    """The closest of the training images by Euclidean distance of pixels.

    `leave_out` has for each image the row that it is itself, which does not count.
    """
    flat = training.reshape(len(training), -1).astype(np.float32)
    squares = np.einsum("md,md->m", flat, flat)
    rows = np.zeros(len(images), np.int64)
    for start in range(0, len(images), PART):
        part = images[start : start + PART].reshape(-1, flat.shape[1]).astype(np.float32)
        apart = squares - 2 * part @ flat.T
        for place, own in enumerate(leave_out[start : start + PART]):
            apart[place, own] = np.inf
        rows[start : start + len(part)] = apart.argmin(axis=1)
    # Float32 ranks them; the distance itself is exact, so that a copy has 0.
    between = images.astype(np.float64) - training[rows]
    return Neighbours(rows, np.sqrt(np.square(between).mean(axis=(1, 2, 3))))


@dataclasses.dataclass(frozen=True)
class Shown:
    """A sampled image beside the training image that is closest to it."""

    sampled: UInt8[np.ndarray, "h w 3"]
    closest: UInt8[np.ndarray, "side side 3"]
    prompt: str
    caption: str  # of the closest one
    distance: float
    real: float  # distance of the prompt's own real image to the closest other training image
    group: str


def save_pairs(file: Path, shown: Sequence[Shown]) -> None:
    """Write a page of pairs, about 1,000 pixels wide: the sampled image is left."""
    font = ImageFont.load_default(size=FONT)
    height = THUMB + LINE * LINES + 2 * EDGE
    lines = -(-len(shown) // COLUMNS)
    paper = Image.new("RGB", (COLUMNS * WIDTH, lines * height), PAPER)
    draw = ImageDraw.Draw(paper)
    for place, one in enumerate(shown):
        row, column = divmod(place, COLUMNS)
        left, top = column * WIDTH + EDGE, row * height + EDGE
        for number, image in enumerate((one.sampled, one.closest)):
            how = Image.Resampling.BOX if len(image) > THUMB else Image.Resampling.NEAREST
            cell = Image.fromarray(image).resize((THUMB, THUMB), how)
            paper.paste(cell, (left + number * (THUMB + EDGE), top))
        draw.multiline_text(
            (left, top + THUMB + 1), _words(one), fill=INK, font=font, spacing=LINE - FONT - 2
        )
    paper.save(file)


def _words(one: Shown) -> str:
    said = [f"{one.group}: {one.prompt}", f"closest: {one.caption}"]
    wrapped = [line for text in said for line in textwrap.wrap(text, LETTERS)[:2]]
    return "\n".join([*wrapped, f"distance {one.distance:.0f}, the real image's {one.real:.0f}"])
