"""Kernels as torch's files have them: the outputs come first, where they are last here."""

import numpy as np


def to_torch(kernel: np.ndarray) -> np.ndarray:
    """Return (y, x, in, out) of a convolution as (out, in, y, x), and (in, out) as (out, in)."""
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


def from_torch(weight: np.ndarray) -> np.ndarray:
    """Undo `to_torch`."""
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T


def to_pointwise(kernel: np.ndarray) -> np.ndarray:
    """Return (in, out) as the weight (out, in, 1, 1) of a convolution of one pixel."""
    return kernel.T[:, :, None, None]


def from_pointwise(weight: np.ndarray) -> np.ndarray:
    """Undo `to_pointwise`."""
    return weight[:, :, 0, 0].T
