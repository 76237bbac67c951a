"""A bundle of a small cascade with random weights, and what the package makes of it."""

from pathlib import Path

import jax
import numpy as np
import pytest
from small_network import FOLDER

import imagen_jax
from imagen_jax import config, export, models


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory) -> Path:
    """Two stages, int8, text encoder and programs."""
    noise = np.random.default_rng(0)
    stages = [
        export.StageCheckpoint(
            experiment=experiment,
            params=jax.tree.map(
                lambda x: noise.normal(0.0, 0.2, x.shape).astype(np.float32),
                models.parameter_shapes(experiment.stage, experiment.text),
            ),
            step=1,
        )
        for experiment in config.load(str(FOLDER))
    ]
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    contents = export.BundleOptions(text="embedded", programs=True)
    export.write_bundle(folder, stages, dtype="int8", contents=contents)
    return folder


@pytest.fixture(scope="session")
def loaded(random_bundle: Path) -> imagen_jax.Imagen:
    return imagen_jax.load(random_bundle)
