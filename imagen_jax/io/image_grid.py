"""Images for people: captioned grids, and the names of files."""

import bisect
import functools
import io
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagen_jax.io import unicode_forms
from imagen_jax.io.atomic import write_atomic

FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"  # Pillow's own has English letters alone
MARGIN = 8
INK, PAPER = (20, 20, 20), (255, 255, 255)
MOST = 400  # images in a grid, the first ones
MAX_PIXELS = 2**25  # of a grid; of large cells there are fewer
LINES = 5  # of a caption in a grid; a longer one ends with an ellipsis
ELLIPSIS = "..."
NAME_LETTERS, NAME_BYTES = 60, 120  # of a prompt in a file's name


def draw_grid(
    images: Sequence[np.ndarray], captions: Sequence[str], *, side: int = 192, columns: int = 0
) -> Image.Image:
    """Draw a sheet with every image, `side` pixels wide, above its caption.

    Of many images only the first `count_that_fits` are drawn, and a line says so.
    Shapes: each image uint8 (h, w, 3); smaller ones are enlarged without smoothing.
    """
    total, count = len(images), count_that_fits(len(images), side=side)
    columns = columns or min(count, max(4, round(count**0.5)))
    font = _font(side)
    lines = [_wrap(_drawable(caption), font, side) for caption in captions[:count]]
    line_height = round(font.size * 1.3)
    height = side + line_height * max(1, *map(len, lines)) + MARGIN
    rows = -(-count // columns)
    width = columns * (side + MARGIN) + MARGIN
    foot = line_height if count < total else 0
    sheet = Image.new("RGB", (width, rows * (height + MARGIN) + MARGIN + foot), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (pixels, text) in enumerate(zip(images, lines, strict=False)):
        x = MARGIN + (i % columns) * (side + MARGIN)
        y = MARGIN + (i // columns) * (height + MARGIN)
        image = Image.fromarray(pixels)
        smooth = Image.Resampling.BOX if image.width > side else Image.Resampling.NEAREST
        sheet.paste(image.resize((side, side), smooth), (x, y))
        draw.rectangle((x - 1, y - 1, x + side, y + side), outline=(200, 200, 200))
        for n, line in enumerate(text):
            draw.text((x, y + side + 2 + n * line_height), line, fill=INK, font=font)
    if foot:
        note = f"the first {count:,} of {total:,}"
        draw.text((MARGIN, sheet.height - foot), note, fill=INK, font=font)
    return sheet


def save_image(image: Image.Image, file: Path) -> None:
    """Write an image in the format of the file's ending, in place of an earlier one.

    Errors: ValueError for another ending; OSError.
    """
    format_name = Image.registered_extensions().get(file.suffix.lower())
    if format_name is None:
        raise ValueError(f"{file}: no image format has the ending {file.suffix!r}; name it .png")
    encoded = io.BytesIO()
    image.save(encoded, format_name)
    write_atomic(file, encoded.getvalue())


def count_that_fits(count: int, *, side: int = 192) -> int:
    """Count the images that a grid shows: few enough for any viewer to open it."""
    cell = (side + MARGIN) * (side + 2 * MARGIN + LINES * round(_font(side).size * 1.3))
    return min(count, MOST, max(1, MAX_PIXELS // cell))


def file_name(index: int, prompt: str) -> str:
    """Name the file of a prompt's image; no two indices have the same name."""
    return f"{index:04d}_{_slug(prompt)}.png"


def _font(side: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, max(11, side // 15))


@functools.cache
def _known() -> frozenset[int]:
    """Code points that the font has."""
    from fontTools.ttLib import TTFont

    with TTFont(FONT, lazy=True) as font:
        return frozenset(font.getBestCmap())


def _drawable(text: str) -> str:
    """A text with letters that the font lacks, such as Chinese ones, as Python escapes them."""
    known = _known()
    return "".join(
        c if c.isspace() or ord(c) in known else c.encode("ascii", "backslashreplace").decode()
        for c in unicode_forms.normalize("NFC", text)
    )


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """At most LINES lines, none wider than `width`; of more text the last one says so."""
    lines = list(itertools.islice(_lines(text, font, width), LINES + 1))
    if len(lines) <= LINES:
        return lines
    last, room = lines[LINES - 1], width - font.getlength(ELLIPSIS)
    return [*lines[: LINES - 1], last[: _fitting(last, font, room)].rstrip() + ELLIPSIS]


def _lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Words as far as they fit; one that is wider than a line is broken."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if _fitting(longer, font, width) == len(longer):
            line = longer
            continue
        if line:
            yield line
        line = word
        while (fits := max(1, _fitting(line, font, width))) < len(line):
            yield line[:fits]
            line = line[fits:]
    if line:
        yield line


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int | float) -> int:
    """Count the first characters of a text that are together no wider than `width`."""
    short = text[: round(width)]  # letters of a pixel or wider; longer texts take long to measure
    return bisect.bisect_right(
        range(1, len(short) + 1), width, key=lambda count: font.getlength(short[:count])
    )


def _slug(prompt: str) -> str:
    """A prompt's letters and digits, of any script, with their marks, and hyphens for the rest.

    A prompt of signs alone has their names.
    """
    if not prompt.strip():
        return "no-text"
    start = prompt[: 4 * NAME_LETTERS]
    return _spelt(start) or _spelt(" ".join(unicodedata.name(c, "") for c in start)) or "signs"


def _spelt(text: str) -> str:
    small = unicode_forms.normalize("NFKC", text).lower()
    groups = itertools.groupby(small, lambda c: unicodedata.category(c)[0] in "LMN")
    words = ["".join(part) for is_word, part in groups if is_word]
    cut = "-".join(words)[:NAME_LETTERS].encode()[:NAME_BYTES]
    return cut.decode(errors="ignore").strip("-")
