"""What T5X itself computed, and the embedded encoder's sizes and weights."""

from pathlib import Path

import numpy as np
import pytest

from imagen_jax.text import encoder_folders
from imagen_jax.text.checkpoints import load

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Folder of `reference.npz` and of T5X's scanned checkpoint with the same weights."""
    return FIXTURES


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    """What T5X cc342d4 (jax 0.10.2, CPU) computed from the embedded checkpoint's weights."""
    with np.load(FIXTURES / "reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def tiny():
    """(T5Config, params) of the embedded encoder."""
    return load.load_parameters(encoder_folders.EMBEDDED["t5_1_1_tiny"])
