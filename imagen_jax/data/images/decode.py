"""Encoded bytes to upright RGB pixels, whatever the file's mode; never a warning.

ICC profiles are left alone: pixels are taken for sRGB. Of an animation the first frame is decoded.
What a file is, its bytes say; its name is never asked.
"""

import io
import re
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from imagen_jax import limits
from imagen_jax.data.images import decoding_cost
from imagen_jax.image import ORIENTATION, TURNS, make_upright, to_rgb
from imagen_jax.io.errors import UNREADABLE

RGB = UInt8[np.ndarray, "h w 3"]
# Left out, among others: EPS, which runs a program, and TIFF, whose library prints its warnings.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
STRIP = 1 << 20  # pixels of 16 bits that are rounded at once
BLOCK = 8  # pixels along a block of a JPEG, whose first coefficient is its mean
MOST_EXIF = 1 << 17  # bytes of EXIF that are looked through
SPARE = 2  # what a JPEG is decoded at otherwise, at least, in sides of its square
# What Pillow raises about damaged bytes in memory; a bomb is a size that nobody wrote.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# One that ignores Pillow's warnings, as `warnings.filters` has them.
PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class SuppressedWarnings:
    """A context that ignores Pillow's warnings while any thread is in it.

    `warnings.catch_warnings` restores what another thread may have changed meanwhile. Here the
    first thread that enters puts one filter in, and the last that leaves removes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if warnings.filters[:1] != [PILLOW]:
                warnings.filters.insert(0, PILLOW)  # type: ignore[attr-defined]  # a list

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            while not self._inside and PILLOW in warnings.filters:
                warnings.filters.remove(PILLOW)  # type: ignore[attr-defined]  # a list


_WITHOUT_WARNINGS = SuppressedWarnings()
_MEMORY = limits.MemoryBudget(limits.IMAGE_MEMORY)  # of all threads that decode


class TimedBytes(io.BytesIO):
    """An image's bytes, until this thread has computed for longer than one image may take.

    Pillow reads an image in pieces, but for WebP, so that this ends what no size foretells. Time of
    waiting, for other threads say, does not count.
    """

    def __init__(self, image: bytes) -> None:
        super().__init__(image)
        self._until = time.thread_time() + limits.IMAGE_SECONDS.value()

    def read(self, size: int | None = -1) -> bytes:
        """Read. Errors: TimeoutError where the time is over."""
        if time.thread_time() > self._until:
            limit = limits.IMAGE_SECONDS
            raise TimeoutError(
                f"it takes more than {limit.value():,} {limit.unit}; if you trust it, set "
                f"{limit.variable} to more"
            )
        return super().read(size)


class UnreadableImageError(ValueError):
    """Bytes that are no complete image, or one that is too large to decode."""

    reason = UNREADABLE  # the same words for all of a kind


class ImageHeader(NamedTuple):
    """The format and size that the beginning of a file states, before the image is made upright."""

    format: str  # one of FORMATS, or MPO for a JPEG with more than one image
    width: int
    height: int


class DecodedImage(NamedTuple):
    """An upright RGB image; what the file shows of it lies in `box`.

    An image that was scaled while it was decoded has whole pixels, of which the last ones may
    reach beyond the file's edge.
    """

    image: Image.Image
    box: tuple[float, float, float, float]  # left, top, right, bottom, in the image's pixels
    is_rgb_png: bool  # and upright: decoding its bytes gives just these pixels


def read_header(image: bytes, *, max_pixels: int | None = None) -> ImageHeader:
    """An image's format and size; nothing is decoded.

    Errors: UnreadableImageError when the bytes are no image, or one of more than `max_pixels`
    (default: `limits.IMAGE_PIXELS`), or one that `limits` exclude otherwise.
    """
    with _opened(image, max_pixels) as (opened, _):
        return ImageHeader(opened.format or "", *opened.size)


def decode_image(image: bytes, *, side: int | None = None, max_pixels: int | None = None) -> RGB:
    """The pixels of an encoded image, as RGB; those of a square one where `side` is given.

    Errors: UnreadableImageError when the bytes are no image or were cut short, when it has other
    sides, or more than `max_pixels`.
    """
    with _opened(image, max_pixels) as (opened, coefficients):
        if side is not None and opened.size != (side, side):  # before it takes memory and time
            raise ValueError(f"it has the size {opened.size} instead of {(side, side)}")
        with _held(opened, coefficients):
            return np.asarray(_upright(opened).image)


def decode_opacity(image: bytes, *, max_pixels: int | None = None) -> UInt8[np.ndarray, "h w"]:
    """The opacity of an image's pixels, upright: 0 transparent to 255, where it has no alpha, too.

    Errors: UnreadableImageError as `decode_image`.
    """
    with _opened(image, max_pixels) as (opened, coefficients), _held(opened, coefficients):
        opened.load()
        if not opened.has_transparency_data:
            alpha = Image.new("L", opened.size, 255)
        else:
            alpha = opened.convert("RGBA").getchannel("A")
        return np.asarray(make_upright(alpha, _orientation(opened)))


def has_transparency(image: bytes) -> bool:
    """Return whether an image has an alpha channel or transparent colours; nothing is decoded.

    Errors: UnreadableImageError as `read_header`.
    """
    with _opened(image, None) as (opened, _):
        return opened.has_transparency_data


def load_image(
    image: bytes, *, side: int | None = None, max_pixels: int | None = None
) -> DecodedImage:
    """An image, decoded; a JPEG that is for a square of `side` pixels at 1/8, 1/4 or 1/2.

    Errors: UnreadableImageError as `decode_image`.
    Source: scaling by a smaller inverse DCT, as libjpeg does; `framing` says what it costs.
    """
    with _opened(image, max_pixels) as (opened, coefficients):
        drafted = opened.draft("RGB", minimum_size(opened.size, side)) if side else None
        with _held(opened, coefficients):
            return _upright(opened, drafted[1][2:] if drafted else None)


def minimum_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the width and height below which a JPEG is not scaled: twice those of its square.

    Only 1/8 may be the square's own scale: it is the mean of each block, as an area downsample is.
    """
    spare = 1 if min(size) == BLOCK * side else SPARE
    return spare * side, spare * side


@contextmanager
def _opened(image: bytes, max_pixels: int | None) -> Iterator[tuple[Image.Image, int]]:
    """A file whose pixels are still to be read, and the bytes that a JPEG's coefficients take.

    Errors: UnreadableImageError, whatever is wrong.
    """
    try:
        with _WITHOUT_WARNINGS:
            decoding_cost.check_markers(image)
            opened = Image.open(TimedBytes(image), formats=FORMATS)
            yield opened, _check_size(opened, image, max_pixels)
    except BROKEN as error:
        found = f"it is none of {', '.join(FORMATS)}"
        what = found if isinstance(error, UnidentifiedImageError) else error
        raise UnreadableImageError(f"{len(image)} bytes are no complete image: {what}") from error


def _check_size(opened: Image.Image, image: bytes, max_pixels: int | None) -> int:
    """Return the bytes that a JPEG's coefficients take. Errors: ValueError for what is too much."""
    width, height = opened.size
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(f"it has {width}x{height} pixels, more than {max_pixels:,}")
    limits.IMAGE_PIXELS.check(width * height, f"it has {width}x{height},")
    if opened.format in ("JPEG", "MPO"):  # which may be decoded at a smaller size
        scans = decoding_cost.check_scans(image, width * height)
        return decoding_cost.coefficient_memory(opened) if scans > 1 else 0
    limits.IMAGE_MEMORY.check(decoding_cost.pixel_memory(opened), "it needs")
    return 0


def _held(opened: Image.Image, coefficients: int) -> AbstractContextManager[None]:
    """Wait for the memory that decoding takes. Errors: ValueError for more than `limits` allow."""
    return _MEMORY.hold(decoding_cost.pixel_memory(opened) + coefficients, "it needs")


def _upright(opened: Image.Image, extent: tuple[float, float] | None = None) -> DecodedImage:
    """Load, turn and convert; `extent` is how much of the loaded pixels is the file's."""
    opened.load()
    width, height = extent or map(float, opened.size)
    rgb = _narrowed(opened) if opened.mode.startswith("I;16") else to_rgb(opened)
    orientation = _orientation(opened)
    if orientation not in TURNS:
        return DecodedImage(
            rgb, (0.0, 0.0, width, height), rgb is opened and opened.format == "PNG"
        )
    turn, turned = TURNS[orientation], make_upright(rgb, orientation)
    if turn.exchanges_sides:
        width, height = height, width
    left = turned.width - width if turn.from_right else 0.0
    top = turned.height - height if turn.from_below else 0.0
    return DecodedImage(turned, (left, top, left + width, top + height), is_rgb_png=False)


def _orientation(loaded: Image.Image) -> int:
    """EXIF's, or 1: an image whose EXIF is damaged is still an image."""
    exif = loaded.info.get("exif", b"")
    if len(exif) > MOST_EXIF:  # of which older Pillow copies all for each entry; it is at the start
        loaded.info["exif"] = exif[:MOST_EXIF]
    try:
        return loaded.getexif().get(ORIENTATION, 1)
    except BROKEN:
        return 1


def _narrowed(loaded: Image.Image) -> Image.Image:
    """Grey of 16 bits, rounded to 8 as 65535 = 255 * 257 has it; some rows at a time."""
    width, height = loaded.size
    grey = np.empty((height, width), np.uint8)
    rows = max(STRIP // width, 1)
    for top in range(0, height, rows):
        strip = loaded.crop((0, top, width, min(top + rows, height)))
        wide = np.asarray(strip).astype(np.uint32)
        clear = wide == loaded.info.get("transparency")
        grey[top : top + rows] = np.where(clear, 255, (wide + 128) // 257)
    return Image.fromarray(grey).convert("RGB")
