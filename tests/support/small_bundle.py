"""A folder of the small cascade, with random weights, as `imagen export` writes it."""

from pathlib import Path
from typing import Literal

import jax
import numpy as np
from small_network import FOLDER

from imagen_jax import config, export, models


def write_small_bundle(
    folder: Path, *, dtype: Literal["float32", "int8"], programs: bool = False
) -> Path:
    """Write two stages and the text encoder."""
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
    contents = export.BundleOptions(text="embedded", programs=programs)
    export.write_bundle(folder, stages, dtype=dtype, contents=contents)
    return folder
