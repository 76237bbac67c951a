"""DeepFloyd IF's folders as what `imagen train` and `imagen plan` take: configs, and weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagen_jax import config
from imagen_jax.io.named_tensors import NamedTensors
from imagen_jax.pretrained.deepfloyd import load
from imagen_jax.text.checkpoints.lazy_tensors import Layout

OPTIM = config.Optim(learning_rate=1e-5, warmup_steps=500)
TRAIN = config.Train(steps=10_000, batch_size=256)


def training_experiments(folders: Sequence[Path]) -> tuple[config.Experiment, ...]:
    """The stages of pipelines' folders, to continue; their loss is that of the noise alone.

    So a run's sampler has a fixed variance, as small as it may be, unless
    `stage.diffusion.variance` is set to learned_range.
    Errors: FileNotFoundError or ValueError that names file, tensor or key, and the remedy.
    """
    pipelines = load.open_pipelines(folders)
    text = load.find_text(pipelines)
    return tuple(_training_experiment(p.experiment(text or p.text)) for p in pipelines)


def _training_experiment(found: config.Experiment) -> config.Experiment:
    stage = found.stage
    diffusion = dataclasses.replace(stage.diffusion, variance="fixed")
    sampler = dataclasses.replace(stage.sampler, stochasticity=0.0)
    stage = dataclasses.replace(stage, diffusion=diffusion, sampler=sampler)
    return dataclasses.replace(found, stage=stage, optim=OPTIM, train=TRAIN)


def find_weights(folders: Sequence[Path], *, enlarges: bool) -> tuple[Path, NamedTensors] | None:
    """The folder of stage I, or of the one that enlarges, and its weights; None for none.

    Errors: as `training_experiments`.
    """
    pipeline = load.find_pipeline(folders, enlarges=enlarges)
    return None if pipeline is None else (pipeline.folder / "unet", _named(pipeline.layout))


def _named(layout: Layout) -> NamedTensors:
    held = {p.name: (tensor, p) for tensor, parts in layout for p in parts}

    def read(name: str) -> np.ndarray:
        tensor, parameter = held[name]
        return np.array(parameter.view(tensor.read()), np.float32, order="C")

    return NamedTensors({name: p.shape for name, (_, p) in held.items()}, read)
