"""Images as arrays: uint8 to [-1, 1] and back, upright RGB on white, antialiased downsampling.

Worker processes import this module: it imports jax, and PIL, only where it is called for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

if TYPE_CHECKING:
    import PIL.Image

WHITE = 128  # of 255: pixels of a mask from here on are sampled again
ORIENTATION = 0x0112  # EXIF's tag


class Turn(NamedTuple):
    """What makes an image upright; which of its edges then come from the right and from below."""

    transpose: str  # a name in `PIL.Image.Transpose`
    from_right: bool
    from_below: bool
    exchanges_sides: bool = False  # width and height


TURNS = {  # by EXIF's orientation
    2: Turn("FLIP_LEFT_RIGHT", True, False),
    3: Turn("ROTATE_180", True, True),
    4: Turn("FLIP_TOP_BOTTOM", False, True),
    5: Turn("TRANSPOSE", False, False, True),
    6: Turn("ROTATE_270", True, False, True),
    7: Turn("TRANSVERSE", True, True, True),
    8: Turn("ROTATE_90", False, True, True),
}


def to_float(pixels: Any) -> Any:
    """Convert pixels 0-255, of jax or NumPy, to a float32 image in [-1, 1] of jax."""
    import jax.numpy as jnp

    return jnp.asarray(pixels).astype(jnp.float32) / 127.5 - 1.0


def to_uint8(image: Any) -> Any:
    """Convert an image in [-1, 1] to rounded uint8 pixels of jax; values outside are clipped."""
    return _compiled_to_uint8()(image)


def to_uint8_by_batch(
    images: Float[np.ndarray, "n h w c"], batch_size: int
) -> UInt8[np.ndarray, "n h w c"]:
    """`to_uint8` of NumPy's images a batch at a time: one program, whatever their number."""
    filled = np.pad(images, [(0, -len(images) % batch_size), (0, 0), (0, 0), (0, 0)])
    starts = range(0, len(filled), batch_size)
    parts = [np.asarray(to_uint8(filled[start : start + batch_size])) for start in starts]
    return np.concatenate(parts)[: len(images)]


@functools.cache
def _compiled_to_uint8() -> Callable[[Any], Any]:
    import jax
    import jax.numpy as jnp

    def convert(image: Any) -> Any:
        return jnp.round((jnp.clip(image, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)

    return jax.jit(convert)


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert an image of 8 bits to RGB, on white where it is transparent; one in RGB is returned.

    Of a JPEG in CMYK 0 is full ink, with Adobe's marker or without, as in Pillow and browsers.
    """
    if image.has_transparency_data:
        from PIL import Image

        clear = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(clear, mask=clear)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def make_upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Turn an image as EXIF's orientation says; an unknown one leaves it."""
    from PIL.Image import Transpose

    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(Transpose[turn.transpose])


def fit_image(
    image: PIL.Image.Image, size: tuple[int, int], *, smooth: bool = True
) -> PIL.Image.Image:
    """Cut an image round its centre to the shape of `size`, (height, width), and resize it to that.

    Without `smooth` no new colours arise, as a mask needs it.
    """
    from PIL import Image, ImageOps

    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return ImageOps.fit(image, (size[1], size[0]), how)


def is_white(pixels: UInt8[np.ndarray, "*b h w 3"]) -> Bool[np.ndarray, "*b h w"]:
    """Tell which pixels of a mask are white: those that are sampled again."""
    return pixels.mean(axis=-1) >= WHITE


def area_downsample(
    pixels: UInt8[np.ndarray, "*b h w c"] | Float[np.ndarray, "*b h w c"], factor: int
) -> UInt8[np.ndarray, "*b low_h low_w c"] | Float[np.ndarray, "*b low_h low_w c"]:
    """The mean of each `factor` x `factor` box; uint8 is rounded half up, floats are not.

    Shapes: pixels (..., h, w, c), the result (..., h / factor, w / factor, c).
    Errors: ValueError when `factor` does not divide both sides.
    Source: antialiased as Imagen's low-resolution inputs are here; no ringing, no overshoot.
    """
    *batch, height, width, channels = pixels.shape
    if factor < 1 or height % factor or width % factor:
        raise ValueError(f"factor={factor} does not divide an image of {height}x{width} pixels")
    if factor == 1:
        return pixels
    whole = pixels.dtype == np.uint8
    # Rows first: their sums run over contiguous memory, several times faster than both at once.
    rows = pixels.reshape(*batch, height // factor, factor, width * channels)
    sums = rows.sum(axis=-2, dtype=np.uint32 if whole else pixels.dtype)
    columns = sums.reshape(*batch, height // factor, width // factor, factor, channels)
    total: Any = sum(columns[..., k, :] for k in range(factor))
    area = factor * factor
    return ((total + area // 2) // area).astype(np.uint8) if whole else total / area
