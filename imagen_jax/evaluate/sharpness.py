"""Sharpness of edges, which an oracle that looks at 64 pixels cannot see at 256."""

import numpy as np
from jaxtyping import UInt8

PART = 64  # images looked at once: the gradients of all need much memory


def sharpness(images: UInt8[np.ndarray, "p h w 3"]) -> float:
    """Mean edge gradient of the images, each pixel weighted by its own gradient.

    An edge of height h that takes n pixels counts h / n, however long it is and however much plain
    ground lies about it; so the ratio to real images of the same scenes is how many times wider
    the real edges are. Images without any edge count nothing.
    Shapes: (p, h, w, 3). Units: levels of 255 per pixel.
    Source: ours; the ratio of the gradient's second to its first moment.
    """
    first = second = 0.0  # moments of the gradient
    for start in range(0, len(images), PART):
        levels = images[start : start + PART].astype(np.float64)
        right = levels[:, :-1, 1:] - levels[:, :-1, :-1]
        down = levels[:, 1:, :-1] - levels[:, :-1, :-1]
        energy = (right**2 + down**2).mean(axis=-1)
        first += float(np.sqrt(energy).sum())
        second += float(energy.sum())
    return second / first if first else 0.0
