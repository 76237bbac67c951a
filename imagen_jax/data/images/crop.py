"""Images of any size to squares: short side resized with antialiasing, then a window of it.

Resizing by a whole factor is `area_downsample`. Other factors go through Pillow's HAMMING filter,
which has no negative lobe, so that nothing overshoots. Against exact area means (float64; synthetic
images, 512 pixels to 384 ... 64, of standard deviation 60 levels) its root mean square error is
0.5 to 0.8 levels. BOX, which gives a pixel on a box's edge to one side, has 0.8 to 1.9, BILINEAR
0.8 to 2.0; BICUBIC and LANCZOS ring. JPEGs are decoded at no less than twice
the side: at once to the side their error is up to five times as large (1.5 levels for 512 to 256,
and 44 at single pixels). Only from eight times the side they come at once, with 0.7 levels, most
of it from colour that the file has at half its size; a fifth of the time is saved.
"""

import numpy as np
from PIL import Image

from imagen_jax.config import Framing
from imagen_jax.data.images import decode
from imagen_jax.data.images.decode import RGB, DecodedImage
from imagen_jax.image import area_downsample

GAP = 3.0  # means of boxes first, down to so many pixels for one: Pillow's reducing_gap
Box = tuple[float, float, float, float]  # left, top, right, bottom


def crop_generator(framing: Framing, index: int) -> np.random.Generator:
    """Make the generator of one image's crop, the same for every process and at any time."""
    return np.random.default_rng([framing.crop_seed, index])


def frame_image(image: bytes, side: int, *, framing: Framing, rng: np.random.Generator) -> RGB:
    """An encoded image as a square of `side` pixels.

    Errors: ValueError when it cannot be decoded, or would have to be enlarged.
    """
    return crop_square(decode.load_image(image, side=side), side, framing=framing, rng=rng)


def crop_square(
    decoded: DecodedImage, side: int, *, framing: Framing, rng: np.random.Generator
) -> RGB:
    """A decoded image as a square of `side` pixels.

    Errors: ValueError when it would have to be enlarged.
    """
    box = crop_window(decoded.box, side, framing=framing, rng=rng)
    pixels = resize_image(decoded.image, side, box=box)
    flipped = framing.flip and rng.integers(2) == 1
    return np.ascontiguousarray(pixels[:, ::-1]) if flipped else pixels


def crop_window(box: Box, side: int, *, framing: Framing, rng: np.random.Generator) -> Box:
    """The part of an image that becomes the square: as if all of it were resized, then cropped.

    Units: pixels of the image, which lies in `box`; the corner is on a pixel of the resized one.
    Errors: ValueError when the image is smaller than the square.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    short = min(width, height)
    if short < side:
        raise ValueError(
            f"an image of {width:g}x{height:g} pixels is too small for a square of {side}: "
            "images are never enlarged"
        )
    room = [int(extent * side / short) - side for extent in (width, height)]
    random = framing.crop == "random"
    x, y = (int(rng.integers(n + 1)) if random else n // 2 for n in room)
    scale = short / side
    left, top = left + x * scale, top + y * scale
    return left, top, min(left + short, right), min(top + short, bottom)


def resize_image(image: Image.Image, side: int, *, box: Box) -> RGB:
    """A square part of an image at `side` x `side` pixels, no more than it has."""
    scale = (box[2] - box[0]) / side
    if scale.is_integer() and all(edge.is_integer() for edge in box):
        left, top, right, bottom = map(int, box)
        if int(scale).bit_count() == 1:  # Pillow's is the same for powers of two, and faster
            return np.asarray(image.reduce(int(scale), (left, top, right, bottom)))
        return area_downsample(np.asarray(image)[top:bottom, left:right], int(scale))
    resized = image.resize((side, side), Image.Resampling.HAMMING, box=box, reducing_gap=GAP)
    return np.asarray(resized)
