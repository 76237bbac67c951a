"""Bitmaps of emoji on white, 128 x 128."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from imagen_jax.data.images import decode

SIDE = 128
LARGEST = 1024  # side of a bitmap, in pixels; real ones have up to 256


def paste_on_white(bitmap: bytes) -> UInt8[np.ndarray, "128 128 3"]:
    """A bitmap on white, in a square and undistorted.

    Noto's are 136 x 128 with four empty columns on either side: the middle 128 x 128 hold all that
    can be seen, so that no pixel is resampled. Whatever does not fit is scaled, antialiased.
    Errors: ValueError for bytes that are no complete image and for a bitmap that is too large.
    """
    loaded = _load(bitmap)
    page = Image.new("RGBA", loaded.size, "white")
    page.alpha_composite(loaded)
    width, height = loaded.size
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    window = (left, top, left + SIDE, top + SIDE)
    seen = loaded.getchannel("A").getbbox() or window
    inside = seen[0] >= left and seen[1] >= top and seen[2] <= window[2] and seen[3] <= window[3]
    if left < 0 or top < 0 or not inside:
        return _fitted(page)
    return np.asarray(page.convert("RGB").crop(window))


def _load(bitmap: bytes) -> Image.Image:
    decode.read_header(bitmap)  # refuses what takes long to decode
    try:
        loaded = Image.open(io.BytesIO(bitmap), formats=decode.FORMATS)
        if max(loaded.size) > LARGEST:  # before it takes memory and time
            raise ValueError(f"it has the size {loaded.size}, more than {LARGEST} pixels a side")
        return loaded.convert("RGBA")
    except decode.BROKEN as error:
        raise ValueError(f"{len(bitmap)} bytes are no complete image: {error}") from error


def _fitted(page: Image.Image) -> UInt8[np.ndarray, "128 128 3"]:
    """The whole page as large as the square allows, white around it."""
    scale = SIDE / max(page.size)
    width, height = (max(1, round(side * scale)) for side in page.size)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    small = page.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    square.paste(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(square)
