"""Antialiased downsampling by whole factors: the mean of each box of pixels."""

import numpy as np
from jaxtyping import Float, UInt8


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
    total = sum(columns[..., k, :] for k in range(factor))
    area = factor * factor
    return ((total + area // 2) // area).astype(np.uint8) if whole else total / area
