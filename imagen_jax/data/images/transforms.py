"""Pure per-example steps in numpy: crops, pairs and pyramids of sizes."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from imagen_jax.config import Framing
from imagen_jax.data.images import decode
from imagen_jax.data.images.crop import crop_generator, crop_square
from imagen_jax.data.images.decode import RGB
from imagen_jax.data.images.decode import decode_image as decode_image  # of what `encode` made
from imagen_jax.image import area_downsample

LowRGB = UInt8[np.ndarray, "low_h low_w 3"]
HighRGB = UInt8[np.ndarray, "high_h high_w 3"]


def encode(pixels: RGB) -> bytes:
    """Pixels as PNG bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def random_crop(pixels: RGB, rng: np.random.Generator, *, side: int, multiple: int) -> HighRGB:
    """A square window whose corner lies on multiples of `multiple`, so that it has a low-res twin.

    Errors: ValueError when the window is larger than the image.
    """
    height, width = pixels.shape[:2]
    if side > min(height, width):
        raise ValueError(f"a crop of {side} pixels does not fit an image of {height}x{width}")
    top, left = (
        int(rng.integers((room - side) // multiple + 1)) * multiple for room in (height, width)
    )
    return pixels[top : top + side, left : left + side]


def low_high(
    pixels: RGB, rng: np.random.Generator, *, factor: int, crop: int | None
) -> tuple[LowRGB, HighRGB]:
    """The low- and high-resolution image that a super-resolution stage trains on.

    The crop comes first for speed: its corner lies on multiples of `factor`, hence its boxes are
    those of the whole image and the result equals the matching window of the whole low image.
    Source: Imagen (arXiv:2205.11487) sec. 2.5, 256x256 crops for 256 -> 1024.
    """
    high = pixels if crop is None else random_crop(pixels, rng, side=crop, multiple=factor)
    return area_downsample(high, factor), high


def pyramid(
    image: bytes, sizes: Sequence[int], *, framing: Framing | None = None, index: int = 0
) -> dict[int, bytes]:
    """PNG bytes of a square image at each side; an RGB PNG of such a side is kept as it is.

    With `framing` any image becomes a square of the largest side; what is drawn for it depends on
    `index` alone. Without, it has to be a square already. All sides are area downsamples of this
    one square, so that they show the same.
    Errors: ValueError when the image cannot be decoded or is too small, when it is not square and
    there is no framing, or when a size does not divide the side.
    """
    if framing is None:
        decoded = decode.load_image(image)
        pixels = np.asarray(decoded.image)
    else:
        decoded = decode.load_image(image, side=max(sizes))
        pixels = crop_square(
            decoded, max(sizes), framing=framing, rng=crop_generator(framing, index)
        )
    height, width, _ = pixels.shape
    if width != height or any(height % size for size in sizes):
        raise ValueError(
            f"an image of {width}x{height} pixels cannot become squares of {list(sizes)}: it must "
            "be square and its side a multiple of each"
        )
    whole = decoded.is_rgb_png and decoded.image.size == (width, height)
    kept = {height: image} if whole and not (framing and framing.flip) else {}
    return {
        size: kept[size] if size in kept else encode(area_downsample(pixels, height // size))
        for size in sizes
    }
