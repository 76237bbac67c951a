"""Fréchet distance between Gaussians, and Gaussians of features that come part by part.

All of it is float64, and no complex root is taken: products are of symmetric roots. No eps is added
to a covariance, which would change the distance: eigenvalues that rounding leaves below 0 count as
0, and so a covariance of fewer images than features is as good as any.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64


@dataclass(frozen=True)
class Gaussian:
    """A set of images as its descriptors' mean and covariance."""

    mean: Float64[np.ndarray, " d"]
    covariance: Float64[np.ndarray, "d d"]


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of features so far: what a Gaussian needs, in memory that stays."""

    count: int
    mean: Float64[np.ndarray, " d"]
    scatter: Float64[np.ndarray, "d d"]  # sum of products of deviations from the mean

    @classmethod
    def empty(cls, width: int) -> Moments:
        """No features yet."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    def add(self, features: Float[np.ndarray, "p d"]) -> Moments:
        """Join a part to those before it.

        Deviations are from the part's own mean, so that nothing cancels however far it is from 0.
        Source: Chan, Golub and LeVeque 1979.
        """
        wide = features.astype(np.float64)
        mean = wide.mean(axis=0)
        apart = wide - mean
        total, shift = self.count + len(wide), mean - self.mean
        between = np.outer(shift, shift) * (self.count * len(wide) / total)
        return Moments(
            total,
            self.mean + shift * (len(wide) / total),
            self.scatter + apart.T @ apart + between,
        )

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance. Errors: ValueError for fewer than 2 images."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.count}")
        return Gaussian(self.mean, self.scatter / (self.count - 1))


def fit_gaussian(descriptors: Float64[np.ndarray, "p d"]) -> Gaussian:
    """Mean and unbiased covariance. Shapes: descriptors (p, d). Errors: ValueError for p < 2."""
    if len(descriptors) < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {len(descriptors)}")
    return Gaussian(descriptors.mean(axis=0), np.cov(descriptors, rowvar=False))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), 0 for equal Gaussians.

    The trace of the last root is the sum of the singular values of C1^(1/2) C2^(1/2): real and
    positive even where a covariance is singular.
    Source: Dowson and Landau 1982; FID takes the root of the asymmetric product instead.
    """
    shift = float(np.sum((first.mean - second.mean) ** 2))
    product = _root(first.covariance) @ _root(second.covariance)
    shared = float(np.linalg.svd(product, compute_uv=False).sum())
    spread = float(np.trace(first.covariance) + np.trace(second.covariance))
    return max(shift + spread - 2 * shared, 0.0)  # rounding alone makes it negative


def _root(covariance: Float64[np.ndarray, "d d"]) -> Float64[np.ndarray, "d d"]:
    """The symmetric square root; rounding may leave eigenvalues just below 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
