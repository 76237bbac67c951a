"""The tiny DeepFloyd IF pipelines in tests/fixtures, and what diffusers computed with them."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

FOLDER = Path(__file__).parents[1] / "fixtures" / "deepfloyd_if_tiny"


def read_reference(name: str) -> dict[str, np.ndarray]:
    """Arrays of a file in `refs` by name; images are (b, h, w, c), numbers float32."""
    with np.load(FOLDER / "refs" / f"{name}.npz") as file:
        return {key: _ours(file[key]) for key in file.files}


def _ours(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def relative_error(found: object, wanted: np.ndarray) -> float:
    """The largest difference by the largest number."""
    difference = np.asarray(jnp.asarray(found), np.float64) - wanted
    return float(np.abs(difference).max() / np.abs(wanted).max())
