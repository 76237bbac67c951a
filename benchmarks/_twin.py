"""A base-style U-Net of as many parameters as an Efficient U-Net, for comparisons of the two."""

import dataclasses

import numpy as np

from imagen_jax import config, models

MULTS = (1, 2, 3, 4)  # of the paper's base network; deeper levels keep the last
RES_BLOCKS = (1, 2)  # a level, whichever comes closer in parameters


def twin(experiment: config.Experiment) -> config.UNet:
    """The base-style U-Net whose number of parameters is nearest to the Efficient U-Net's.

    It has the same feature sides, attends at the same ones and reads the text in the same way.
    """
    goal = np.log(count_parameters(experiment, experiment.stage.model))
    step = experiment.stage.model.norm_groups
    best: tuple[float, config.UNet] | None = None
    for res_blocks in RES_BLOCKS:
        for channels in range(step, 64 * step, step):
            network = _unet(experiment.stage, channels=channels, res_blocks=res_blocks)
            excess = np.log(count_parameters(experiment, network)) - goal
            if best is None or abs(excess) < best[0]:
                best = abs(excess), network
            if excess > 0:
                break
    assert best is not None  # both loops run at least once
    return best[1]


def _unet(stage: config.Stage, *, channels: int, res_blocks: int) -> config.UNet:
    efficient = stage.model
    side, attending = stage.train_side, set()
    sides = [side]
    for level in efficient.levels:
        side //= level.stride
        sides.append(side)
        if level.self_attention or level.text_attention:
            attending.add(side)
    levels = len(set(sides))
    return config.UNet(
        channels=channels,
        channel_mult=tuple(MULTS[min(i, len(MULTS) - 1)] for i in range(levels)),
        res_blocks=res_blocks,
        attention_at=tuple(sorted(attending | {side}, reverse=True)),
        head_channels=channels,
        norm_groups=efficient.norm_groups,
        time_embed=efficient.time_embed,
        dropout=efficient.dropout,
        remat=efficient.remat,
        dtype=efficient.dtype,
        text=efficient.text,
    )


def count_parameters(
    experiment: config.Experiment, network: config.UNet | config.EfficientUNet
) -> int:
    """Number of parameters of a network in the experiment's place; nothing is computed."""
    stage = dataclasses.replace(experiment.stage, model=network)
    return models.count_parameters(models.parameter_shapes(stage, experiment.text))
