"""Pure per-example steps in numpy: decode, area downsampling, crops, the (high, low) pair."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

RGB = UInt8[np.ndarray, "h w 3"]
LowRGB = UInt8[np.ndarray, "low_h low_w 3"]
HighRGB = UInt8[np.ndarray, "high_h high_w 3"]
# What Pillow raises about damaged bytes in memory; a bomb is a size that nobody wrote.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # raised where warnings are errors
)


def decode(image: bytes, *, side: int | None = None) -> RGB:
    """The pixels of an encoded picture, as RGB; those of a square one where `side` is given.

    Errors: ValueError when the bytes are no picture or were cut short, or when it has other sides.
    """
    return _rgb(_load(image, side=side))


def encode(pixels: RGB) -> bytes:
    """Pixels as PNG bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue()


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
        raise ValueError(f"factor={factor} does not divide a picture of {height}x{width} pixels")
    if factor == 1:
        return pixels
    whole = pixels.dtype == np.uint8
    # Rows first: their sums run over contiguous memory, several times faster than both at once.
    rows = pixels.reshape(*batch, height // factor, factor, width * channels)
    sums = rows.sum(axis=-2, dtype=np.uint32 if whole else pixels.dtype)
    columns = sums.reshape(*batch, height // factor, width // factor, factor, channels)
    total = sum(columns[..., k, :] for k in range(factor))
    area = factor * factor
    return ((total + area // 2) // area).astype(np.uint8) if whole else total / area


def random_crop(pixels: RGB, rng: np.random.Generator, *, side: int, multiple: int) -> HighRGB:
    """A square window whose corner lies on multiples of `multiple`, so that it has a low-res twin.

    Errors: ValueError when the window is larger than the picture.
    """
    height, width = pixels.shape[:2]
    if side > min(height, width):
        raise ValueError(f"a crop of {side} pixels does not fit a picture of {height}x{width}")
    top, left = (
        int(rng.integers((room - side) // multiple + 1)) * multiple for room in (height, width)
    )
    return pixels[top : top + side, left : left + side]


def low_high(
    pixels: RGB, rng: np.random.Generator, *, factor: int, crop: int | None
) -> tuple[LowRGB, HighRGB]:
    """The low- and high-resolution picture that a super-resolution stage trains on.

    The crop comes first for speed: its corner lies on multiples of `factor`, hence its boxes are
    those of the whole picture and the result equals the matching window of the whole low picture.
    Source: Imagen (arXiv:2205.11487) sec. 2.5, 256x256 crops for 256 -> 1024.
    """
    high = pixels if crop is None else random_crop(pixels, rng, side=crop, multiple=factor)
    return area_downsample(high, factor), high


def pyramid(image: bytes, sizes: Sequence[int]) -> dict[int, bytes]:
    """PNG bytes of a square picture at each side; an RGB PNG of such a side is kept as it is.

    Errors: ValueError when the picture is not square or a size does not divide its side.
    """
    loaded = _load(image)
    width, height = loaded.size
    if width != height or any(height % size for size in sizes):
        raise ValueError(
            f"a picture of {width}x{height} pixels cannot become squares of {list(sizes)}: it must "
            "be square and its side a multiple of each"
        )
    kept = {height: image} if loaded.format == "PNG" and loaded.mode == "RGB" else {}
    todo = [size for size in sizes if size not in kept]
    pixels = _rgb(loaded) if todo else None
    made = {size: encode(area_downsample(pixels, height // size)) for size in todo}
    return {size: kept[size] if size in kept else made[size] for size in sizes}


def _load(image: bytes, *, side: int | None = None) -> Image.Image:
    try:
        loaded = Image.open(io.BytesIO(image))
        if side is not None and loaded.size != (side, side):  # before it takes memory and time
            raise ValueError(f"it has the size {loaded.size} instead of {(side, side)}")
        loaded.load()
    except BROKEN as error:
        raise ValueError(f"{len(image)} bytes are no complete picture: {error}") from error
    return loaded


def _rgb(loaded: Image.Image) -> RGB:
    return np.asarray(loaded if loaded.mode == "RGB" else loaded.convert("RGB"))
