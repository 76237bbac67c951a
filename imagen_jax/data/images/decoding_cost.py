"""Memory and time that decoding an image takes, from its header and markers: nothing is decoded."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping

from PIL import Image

from imagen_jax import limits

# Bytes for a pixel while Pillow decodes a file of a mode, makes it RGB on white and an array of it,
# at the peak: measured with files of 20 million pixels, 10 to 11, 11 to 14, and 18 to 22 bytes.
RGB_BYTES = 12
CLEAR_BYTES = 15
WEBP_BYTES = 23  # two canvases of the animation's decoder, their copy, and Pillow's own
ROW_BYTES = 20  # for a row: its places in what Pillow holds; of rows of a pixel they decide
COEFFICIENT_BYTES = 2  # for each of a pixel's components of a JPEG of several scans
SCAN = b"\xff\xda"
END = 0xD9
STANDALONE = frozenset({0x01, *range(0xD0, END + 1)})  # markers without a length
# Those with one, and the end.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
LARGE = 1 << 24  # pixels from which on a scan too many in an estimate matters
LONG, MOST_PARTS = 1 << 20, 200_000  # bytes from which on parts are counted, and parts
EXIF = b"Exif\0\0"  # begins such a segment of a JPEG, of 64 kB at most
MOST_EXIF, MOST_PROFILES = 4, 4


def pixel_memory(opened: Image.Image) -> int:
    """Estimate the bytes of memory for the pixels of an image that Pillow has opened."""
    width, height = opened.size
    if opened.format == "WEBP":
        return WEBP_BYTES * width * height
    plain = opened.mode in ("1", "L", "RGB", "YCbCr") and not opened.has_transparency_data
    return (RGB_BYTES if plain else CLEAR_BYTES) * width * height + ROW_BYTES * height


def coefficient_memory(opened: Image.Image) -> int:
    """Bytes that a JPEG of several scans takes until the last of them is read."""
    width, height = opened.size
    return COEFFICIENT_BYTES * len(opened.getbands()) * width * height


def check_markers(image: bytes) -> None:
    """Refuse an image of so many parts that Pillow, which looks at each, takes long.

    Pillow unpacks each colour profile of a PNG, and copies all EXIF of a JPEG for each part of it.
    Errors: ValueError.
    """
    few = image.count(EXIF) <= MOST_EXIF
    if len(image) < LONG and few:
        return
    exif = profiles = 0
    for count, at in enumerate(_STEPS.get(image[:2], lambda _: iter(()))(image)):
        exif += not few and image[at : at + 2] == b"\xff\xe1" and image[at + 4 :][:6] == EXIF
        profiles += image[at + 4 : at + 8] == b"iCCP"
        if exif > MOST_EXIF or profiles > MOST_PROFILES:
            raise ValueError(f"it has more than {MOST_EXIF} EXIF or colour profiles: save it again")
        if count > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS:,} parts: save it again")


def _jpeg_steps(image: bytes) -> Iterator[int]:
    """Yield places in a JPEG before its first scan, as Pillow comes to them."""
    at = 2
    while at + 4 <= len(image):
        yield at
        if image[at] != 0xFF or image[at + 1] in (0x00, 0xFF):
            at += 1
        elif image[at + 1] == SCAN[1]:
            return
        elif image[at + 1] in STANDALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(image[at + 2 : at + 4], "big")


def _png_steps(image: bytes) -> Iterator[int]:
    """Yield the places of a PNG's chunks."""
    at = 8
    while at < len(image):
        yield at
        at += 12 + int.from_bytes(image[at : at + 4], "big")


def _gif_steps(image: bytes) -> Iterator[int]:
    """Yield the places of a GIF's blocks before its first image."""
    at = 13 + (3 << (image[10] & 7) + 1 if image[10] & 0x80 else 0)
    while at + 2 < len(image) and image[at] != ord(","):
        yield at
        if image[at] != ord("!"):
            at += 1
            continue
        at += 2
        while at < len(image) and image[at]:
            yield at
            at += 1 + image[at]
        at += 1


def _webp_steps(image: bytes) -> Iterator[int]:
    """Yield the places of a WebP's chunks, such as frames."""
    at = 12
    while at < len(image):
        yield at
        size = int.from_bytes(image[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


_STEPS: Mapping[bytes, Callable[[bytes], Iterator[int]]] = {
    b"\xff\xd8": _jpeg_steps,
    b"\x89P": _png_steps,
    b"GI": _gif_steps,
    b"RI": _webp_steps,
}


def check_scans(image: bytes, pixels: int) -> int:
    """Count the scans of a JPEG, each of which costs time over all of its pixels.

    Errors: ValueError for more than `limits` allow.
    """
    scans = image.count(SCAN)  # no fewer: what is compressed has none, but a thumbnail may
    if scans > 1 and (pixels > LARGE or not _are_few(scans, pixels)):
        scans = count_scans(image)
        limits.JPEG_SCANS.check(scans, "it has")
        limits.SCANNED_PIXELS.check(scans * pixels, "it has")
    return scans


def _are_few(scans: int, pixels: int) -> bool:
    return scans <= limits.JPEG_SCANS.value() and scans * pixels <= limits.SCANNED_PIXELS.value()


def count_scans(image: bytes) -> int:
    """Count the scans of a JPEG by its markers, those within other segments left out.

    Errors: ValueError for too many markers.
    """
    at, scans = 2, 0
    for count in itertools.count():
        found = _MARKER.search(image, at)
        if found is None or found[0][-1] == END:  # a further image may follow, not decoded
            return scans
        if count > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS:,} parts: save it again")
        scans += found[0][-1] == SCAN[1]
        at = found.end() + int.from_bytes(image[found.end() : found.end() + 2], "big")
    raise AssertionError("endless")
