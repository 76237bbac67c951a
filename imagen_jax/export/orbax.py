"""Weights for other JAX programs: a standard Orbax checkpoint a stage, beside its config.

Any program reads them by `orbax.checkpoint.StandardCheckpointer().restore(FOLDER/STAGE/params)`: a
nest of float32 NumPy arrays, under Flax's names, whatever devices it has.
"""

from collections.abc import Iterable
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from imagen_jax.export.bundle import StageCheckpoint, check_name
from imagen_jax.io import run_dir
from imagen_jax.io.atomic import new_folder

PARAMS = "params"


def write_params(folder: Path, stages: Iterable[StageCheckpoint]) -> None:
    """Write a cascade's averaged weights into a new folder, complete or not at all.

    Errors: FileExistsError when `folder` exists; ValueError for stage names that can't be folders.
    """
    written: list[str] = []
    with new_folder(folder) as unfinished, ocp.StandardCheckpointer() as saver:
        for stage in stages:
            name = stage.experiment.stage.name
            check_name(name, written)
            run_dir.write_config(unfinished / name, stage.experiment)
            # From the host: restoring then asks for no devices like those that are here.
            saver.save(unfinished / name / PARAMS, jax.device_get(stage.params))
            saver.wait_until_finished()
            written.append(name)
