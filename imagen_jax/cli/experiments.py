"""The configs that a command's CONFIG names, and the weights of --init-from, if DeepFloyd IF's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imagen_jax import config
from imagen_jax.io import paths

if TYPE_CHECKING:
    from imagen_jax.io.named_tensors import NamedTensors

INDEX = "model_index.json"  # of diffusers' folders


def load_experiments(name: str) -> tuple[config.Experiment, ...]:
    """The experiments of a config, of a folder of them, or of DeepFloyd IF's folders.

    Errors: as `config.load`; FileNotFoundError or ValueError for folders whose files don't fit.
    """
    if not is_diffusers(name):
        return config.load(name)
    from imagen_jax.pretrained.deepfloyd import fine_tune

    return fine_tune.training_experiments(_pipelines(name))


def find_weights(name: str, *, enlarges: bool) -> tuple[Path, NamedTensors] | None:
    """The weights in DeepFloyd IF's folders of stage I or the one that enlarges; None elsewhere.

    Errors: ValueError for folders without that stage; as `load_experiments`.
    """
    if not is_diffusers(name):
        return None
    from imagen_jax.pretrained.deepfloyd import fine_tune

    found = fine_tune.find_weights(_pipelines(name), enlarges=enlarges)
    if found is None:
        wanted = "II, which enlarges" if enlarges else "I, which samples from text"
        raise ValueError(f"--init-from {name}: it has no stage {wanted}")
    return found


def is_diffusers(name: str) -> bool:
    """Return whether a name is a folder of diffusers', or holds some. No jax is imported."""
    if "://" in name:
        return False
    folder = paths.local_path(name)
    return (folder / INDEX).is_file() or any(folder.glob(f"*/{INDEX}"))


def _pipelines(name: str) -> list[Path]:
    from imagen_jax.pretrained.deepfloyd import load

    found = load.find_pipelines(paths.local_path(name))
    if not found:
        raise ValueError(f"{name} has a {INDEX}, but is no pipeline of DeepFloyd IF")
    return found
