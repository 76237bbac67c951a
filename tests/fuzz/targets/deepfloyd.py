"""Folders of DeepFloyd IF, as diffusers has them: configs, and a network's tensors."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deepfloyd_references
import numpy as np
from fuzz.mutator import Files, read_files
from fuzz.target import Target

from imagen_jax import config
from imagen_jax.pretrained.deepfloyd import load, weights
from imagen_jax.pretrained.deepfloyd.scheduler_config import read_scheduler_config
from imagen_jax.pretrained.deepfloyd.unet_config import read_unet_config
from imagen_jax.text.checkpoints import lazy_tensors

HONEST = deepfloyd_references.FOLDER


def _configs(_: Path) -> list[Files]:
    """All but the weights, of both stages."""
    return [
        {name: data for name, data in read_files(HONEST / stage).items() if name.endswith(".json")}
        for stage in ("if_I", "if_II")
    ]


def _parse_configs(folder: Path) -> None:
    for pipeline in load.find_pipelines(folder):
        scheduler = read_scheduler_config(pipeline / "scheduler")
        unet = read_unet_config(pipeline / "unet", betas=scheduler.betas)
        assert unet.model.levels


def _weights(_: Path) -> list[Files]:
    return [read_files(HONEST / "if_I" / "unet")]


@functools.cache
def _wanted() -> tuple[Mapping[str, Any], int]:
    unet = read_unet_config(HONEST / "if_I" / "unet")
    stage = config.Stage(name="a", size=16, model=unet.model)
    return weights.parameter_shapes(stage, text_width=unet.text_width), len(unet.model.levels)


def _parse_weights(folder: Path) -> None:
    shapes, levels = _wanted()
    layout = weights.match_tensors(folder, shapes, levels=levels)
    found = lazy_tensors.read_parameters(layout, lambda _, array: np.array(array, np.float32))
    assert found.keys() == shapes.keys()


TARGETS = [
    Target(name="deepfloyd_config", corpus=_configs, parse=_parse_configs, is_cheap=False),
    Target(name="deepfloyd_weights", corpus=_weights, parse=_parse_weights, is_cheap=False),
]
