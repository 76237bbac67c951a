"""A run's folder: `config.json`, and `checkpoints/` or exported weights."""

from imagen_jax import config
from imagen_jax.io import whole_files
from imagen_jax.io.workdir import Workdir, write

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
WEIGHTS = "weights.safetensors"  # of an exported stage


def write_config(workdir: Workdir, experiment: config.Experiment) -> None:
    """Store the resolved config of a run; `read_config` rebuilds the run from it."""
    workdir.mkdir(parents=True, exist_ok=True)
    write(workdir / CONFIG, config.to_json(experiment))


def read_config(workdir: Workdir) -> config.Experiment:
    """The resolved config of the run in `workdir`.

    Errors: FileNotFoundError when the folder is no run; ValueError for a file that doesn't fit.
    """
    file = workdir / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{workdir} is not a training run: it has no {CONFIG}; give a folder that "
            "`imagen train --workdir` wrote"
        )
    data = whole_files.read_whole(file)
    try:
        return config.from_json(data)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
