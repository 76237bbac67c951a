"""A bundle of a small cascade with random weights, and what the package makes of it."""

from pathlib import Path

import pytest
from small_bundle import write_small_bundle

import imagen_jax


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory) -> Path:
    """Two stages, int8, text encoder and programs."""
    return write_small_bundle(
        tmp_path_factory.mktemp("bundle") / "tiny", dtype="int8", programs=True
    )


@pytest.fixture(scope="session")
def loaded(random_bundle: Path) -> imagen_jax.Imagen:
    return imagen_jax.load(random_bundle)
