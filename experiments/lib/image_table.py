"""Images as a table: one row a setting, one column a caption."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 4
FONT_SIZE = 12
LINE = 15  # pixels from one line of text to the next
LETTER = 7.0  # pixels, about
MARGIN = 150  # of the rows' names
INK, PAPER = (20, 20, 20), (255, 255, 255)


def save_table(
    file: Path, rows: Mapping[str, np.ndarray], captions: Sequence[str], *, side: int
) -> None:
    """Write the table as one image, each cell `side` pixels wide.

    Shapes: rows are uint8 (c, h, w, 3), an image for each of the c captions, enlarged without
    smoothing.
    """
    font = ImageFont.load_default(size=FONT_SIZE)
    heads = [_wrap(caption, side) for caption in captions]
    top = GAP + LINE * max(head.count("\n") + 1 for head in heads)
    step = side + GAP
    size = (MARGIN + step * len(captions), top + step * len(rows))
    paper = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(paper)
    for column, head in enumerate(heads):
        place = (MARGIN + step * column, 0)
        draw.multiline_text(place, head, fill=INK, font=font, spacing=LINE - FONT_SIZE)
    for row, (name, images) in enumerate(rows.items()):
        y = top + step * row
        words = _wrap(name, MARGIN - 2 * GAP)
        draw.multiline_text((GAP, y + side // 2), words, fill=INK, font=font, anchor="lm")
        for column, image in enumerate(images[: len(captions)]):
            smooth = Image.Resampling.BOX if len(image) > side else Image.Resampling.NEAREST
            cell = Image.fromarray(image).resize((side, side), smooth)
            paper.paste(cell, (MARGIN + step * column, y))
    paper.save(file)


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, round(width / LETTER)))
