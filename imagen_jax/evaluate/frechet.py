"""Fréchet distance between two sets of images, on classical descriptors: it stands in for FID.

FID (arXiv:1706.08500) compares Gaussians fitted to the features of an Inception network, which
judges photographs. Here 64 numbers describe an image, nothing learned, all in float64:

- 48 colours: the mean CIELAB colour of each cell of a 4 x 4 grid, divided by 30. They react to
  wrong colours and grounds, dull and garish ones, lost objects and wrong places.
- 16 edges: gradient energy by 8 orientations, at full and at half size, as the square root of its
  sum per image side, divided by 10. They react to blur, noise, wrong outlines and lost fills.

Both divisors are about the spread among images of shapes, so that no block outweighs another; a
crisp edge counts the same at every size. The Gaussians' covariance reacts to lost variety.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from imagen_jax.evaluate.detector import lab
from imagen_jax.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from imagen_jax.types import Pixels

GRID = 4  # cells per side
ORIENTATIONS = 8
COLOUR_SCALE, EDGE_SCALE = 30.0, 10.0  # in CIELAB units
PART = 64  # images described at once
MULTIPLE = 2 * GRID  # of which an image's side must be one: cells at half size are whole too


@dataclass(frozen=True)
class ReferenceSet:
    """Real images to measure against, and how far other real images are from them."""

    gaussian: Gaussian
    floor: float

    def distance(self, images: Pixels) -> float:
        """Return the distance of images to the real ones; a perfect model is at about `floor`."""
        return frechet_distance(fit_gaussian(describe_distribution(images)), self.gaussian)


def load_reference(real: Pixels, other: UInt8[np.ndarray, "n h w 3"]) -> ReferenceSet:
    """A reference of real images, its floor measured with other real ones.

    The distance of finite sets is biased upwards: give as many `other` images as will be judged.
    Errors: ValueError as for `describe_distribution` and `fit_gaussian`.
    """
    gaussian = fit_gaussian(describe_distribution(real))
    return ReferenceSet(
        gaussian, frechet_distance(fit_gaussian(describe_distribution(other)), gaussian)
    )


def describe_distribution(images: Pixels) -> Float64[np.ndarray, "b d"]:
    """The 64 numbers of each image.

    Shapes: images (b, side, side, 3) uint8; result (b, 64).
    Errors: ValueError for images that are not square or whose side is no multiple of 8.
    """
    _, height, side, _ = images.shape
    if height != side or side % MULTIPLE:
        raise ValueError(f"images of {height}x{side}: not square with a multiple of {MULTIPLE}")
    # A few images at a time: the gradients of all need much memory.
    parts = [images[start : start + PART] for start in range(0, len(images), PART)]
    return np.concatenate([_describe(lab(part.astype(np.float64))) for part in parts])


def _describe(colours: Float64[np.ndarray, "b h w 3"]) -> Float64[np.ndarray, "b d"]:
    cells = _shrink(colours, colours.shape[1] // GRID).reshape(len(colours), -1)
    edges = [_edges(colours), _edges(_shrink(colours, 2))]
    return np.concatenate([cells / COLOUR_SCALE, *(e / EDGE_SCALE for e in edges)], axis=1)


def _shrink(colours: Float64[np.ndarray, "b h w 3"], factor: int) -> np.ndarray:
    """The mean of each factor x factor box."""
    count, side, _, _ = colours.shape
    boxes = colours.reshape(count, side // factor, factor, side // factor, factor, 3)
    return boxes.mean(axis=(2, 4))


def _edges(colours: Float64[np.ndarray, "b h w 3"]) -> Float64[np.ndarray, "b o"]:
    """Root of the gradient energy by orientation, opposite directions alike.

    At each pixel the channel with the largest gradient speaks, and its energy goes to the two
    nearest of the orientations. The energy of an edge grows with its length only: its sum is
    divided by the side, and blurring, which spreads the same step over more pixels, lowers it.
    """
    right = (colours[:, 1:-1, 2:] - colours[:, 1:-1, :-2]) / 2
    down = (colours[:, 2:, 1:-1] - colours[:, :-2, 1:-1]) / 2
    loudest = np.argmax(right**2 + down**2, axis=-1)[..., None]
    right, down = (np.take_along_axis(a, loudest, axis=-1)[..., 0] for a in (right, down))
    place = np.arctan2(down, right) % np.pi / np.pi * ORIENTATIONS
    lower = np.floor(place).astype(int)
    energy, beyond = right**2 + down**2, place - lower
    count = len(colours)
    first = np.arange(count)[:, None, None] * ORIENTATIONS  # of each image's row of bins
    summed = np.zeros(count * ORIENTATIONS)
    for orientation, share in ((lower, 1 - beyond), (lower + 1, beyond)):
        bins = (first + orientation % ORIENTATIONS).ravel()
        summed += np.bincount(bins, (energy * share).ravel(), minlength=len(summed))
    return np.sqrt(summed.reshape(count, ORIENTATIONS) / colours.shape[1])
