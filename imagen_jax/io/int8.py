"""Rounding of float32 arrays to int8: the one quantiser, of weights and of captions' encodings.

`io/safetensors.py` stores weights so, `data/store/records.py` encodings.
"""

import numpy as np
from jaxtyping import Float32, Int8

LARGEST = np.float32(127)  # of an int8's magnitudes, the same on both sides


def quantise_int8(
    values: Float32[np.ndarray, "..."], axes: tuple[int, ...]
) -> tuple[Int8[np.ndarray, "..."], Float32[np.ndarray, "..."]]:
    """Round to whole numbers, and give the scale that they count in, which lacks `axes`.

    Along `axes` the largest magnitude becomes 127; a scale of zeros is 0.
    """
    scale = np.abs(values).max(axes, keepdims=True, initial=0.0) / LARGEST
    whole = np.rint(values / np.where(scale > 0, scale, np.float32(1)))
    return whole.astype(np.int8), scale.squeeze(axes)
