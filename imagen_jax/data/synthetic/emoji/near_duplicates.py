"""Images that look the same, by a perceptual hash: the signs of a discrete cosine transform.

Source: the hash known as pHash, here of luminance; and colours, which it does not see.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt64
from scipy import fft

from imagen_jax.data.images.decode import RGB
from imagen_jax.image import area_downsample

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue; Rec. 601
HASHED, KEPT = 32, 8  # side of what is transformed, and of the frequencies whose signs count
CELLS = 8  # side of the mosaic of colours
BITS = 8  # of 64 that may differ
COLOUR = (
    18  # of 255: the most that a cell may differ in; neighbouring skin tones differ by 20 or more
)


class Look(NamedTuple):
    """What images look like."""

    hashes: UInt64[np.ndarray, " n"]
    mosaics: UInt8[np.ndarray, "n cells*cells*3"]

    def part(self, chosen: Sequence[bool]) -> "Look":
        """Those of the chosen images."""
        return Look(self.hashes[np.asarray(chosen)], self.mosaics[np.asarray(chosen)])


def looks(images: Sequence[RGB]) -> Look:
    """Hash images whose sides are a multiple of 32."""
    hashes = [_hash(pixels) for pixels in images]
    mosaics = [area_downsample(p, len(p) // CELLS).reshape(-1) for p in images]
    return Look(
        np.array(hashes, np.uint64),
        np.array(mosaics, np.uint8).reshape(len(images), 3 * CELLS * CELLS),
    )


def find_twins(images: Look, others: Look) -> Bool[np.ndarray, " n"]:
    """Which of the images look like at least one of the others."""
    found = np.zeros(len(images.hashes), bool)
    for index in range(len(images.hashes)):
        near = np.bitwise_count(others.hashes ^ images.hashes[index]) <= BITS
        if near.any():
            mosaic = images.mosaics[index].astype(np.int16)
            apart = np.abs(others.mosaics[near].astype(np.int16) - mosaic).max(axis=1)
            found[index] = (apart <= COLOUR).any()
    return found


def _hash(pixels: RGB) -> int:
    small = area_downsample(pixels, len(pixels) // HASHED).astype(np.float64)
    grey: Float[np.ndarray, "side side"] = small @ np.array(LUMINANCE)
    low = fft.dctn(grey, norm="ortho")[:KEPT, :KEPT].ravel()
    bits = low > np.median(low[1:])  # the first is the mean
    return int("".join("1" if bit else "0" for bit in bits), 2)
