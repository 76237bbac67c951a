"""`--init-from`: the weights that a run of training begins with, and those under its adapters."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from imagen_jax import config
from imagen_jax.cli.experiments import find_weights

if TYPE_CHECKING:
    from imagen_jax.cli.train import Options
    from imagen_jax.train.init_from import InitFrom


def find_source(options: Options, stage: config.Stage) -> InitFrom | None:
    """Find what --init-from names: a run, an exported stage, or this stage of a cascade.

    Of DeepFloyd IF's folders it is the one that enlarges, or the one that does not.
    """
    from imagen_jax import pretrained
    from imagen_jax.io import run_dir
    from imagen_jax.pretrained import locate
    from imagen_jax.train import init_from

    if options.init_from is None:
        if options.init_partial or options.init_take != "ema":
            raise ValueError("--init-take and --init-partial need --init-from")
        return None
    if found := find_weights(options.init_from, enlarges=stage.is_super_resolution):
        folder, tensors = found
        return init_from.InitFrom(
            folder=folder,
            take=options.init_take,
            partial=options.init_partial,
            tensors=tensors,
        )
    if (place := locate.find_stage(options.init_from, stage.name)) is not None:
        return init_from.InitFrom(
            folder=place, take=options.init_take, partial=options.init_partial
        )
    raise FileNotFoundError(
        f"--init-from {options.init_from}: neither it nor a folder {stage.name} in it is a run or "
        f"an exported stage (no {run_dir.CONFIG}); embedded cascades: "
        f"{', '.join(pretrained.list_names())}"
    )


def with_base(experiment: config.Experiment, options: Options) -> config.Experiment:
    """Return the experiment with the place of the weights that its adapters change.

    Errors: ValueError for --init-partial, whose other weights nobody could find again.
    """
    if not experiment.lora.rank or options.init_from is None:
        return experiment
    if options.init_partial or options.init_take != "ema":
        raise ValueError(
            f"--lora.rank {experiment.lora.rank} changes the averaged weights of a whole network: "
            "leave out --init-partial and --init-take"
        )
    base = options.init_from
    if Path(base).exists():
        base = os.path.abspath(base)
    adapters = dataclasses.replace(experiment.lora, base=base)
    return dataclasses.replace(experiment, lora=adapters)
