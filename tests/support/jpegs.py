"""JPEGs that tests make, of any size."""

import io

import numpy as np
from PIL import Image


def photo(size: tuple[int, int], *, seed: int) -> bytes:
    """A smooth picture of (width, height) pixels, another one for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()
