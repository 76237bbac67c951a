"""Pictures for people: captioned grids, and the names of files."""

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
INK, PAPER = (20, 20, 20), (255, 255, 255)


def grid(
    pictures: Sequence[np.ndarray], captions: Sequence[str], *, side: int = 192, columns: int = 0
) -> Image.Image:
    """One sheet with every picture, `side` pixels wide, above its caption.

    Shapes: each picture uint8 (h, w, 3); smaller ones are enlarged without smoothing.
    """
    columns = columns or min(len(pictures), max(4, round(len(pictures) ** 0.5)))
    font = ImageFont.load_default(size=max(11, side // 15))
    lines = [_wrap(c, font, side) for c in captions]
    line_height = round(font.size * 1.3)
    height = side + line_height * max(len(x) for x in lines) + MARGIN
    rows = -(-len(pictures) // columns)
    width = columns * (side + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, rows * (height + MARGIN) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (picture, text) in enumerate(zip(pictures, lines, strict=True)):
        x = MARGIN + (i % columns) * (side + MARGIN)
        y = MARGIN + (i // columns) * (height + MARGIN)
        image = Image.fromarray(picture)
        smooth = Image.Resampling.BOX if image.width > side else Image.Resampling.NEAREST
        sheet.paste(image.resize((side, side), smooth), (x, y))
        draw.rectangle((x - 1, y - 1, x + side, y + side), outline=(200, 200, 200))
        for n, line in enumerate(text):
            draw.text((x, y + side + 2 + n * line_height), line, fill=INK, font=font)
    return sheet


def name(index: int, prompt: str) -> str:
    """What the picture of a prompt is called as a file."""
    return f"{index:04d}_{_slug(prompt)}.png"


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "no-text"
