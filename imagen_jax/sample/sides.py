"""Sides of pictures: those that the networks can paint, and how others are made to fit."""

import math
from collections.abc import Sequence

import numpy as np

from imagen_jax import config

Sides = tuple[int, int]  # height, width


def sizes_of_stages(stages: Sequence[config.Stage], first: Sides) -> list[Sides]:
    """Sides of every stage's pictures, given those of the first.

    Errors: ValueError for sides that a network's strides don't divide.
    """
    found, (height, width) = [], first
    for number, stage in enumerate(stages):
        if number:
            height, width = height * stage.factor, width * stage.factor
        multiple = stage.model.multiple()
        if height % multiple or width % multiple or min(height, width) < 1:
            raise ValueError(
                f"{stage.name} cannot paint {height}x{width} pixels: its network halves them so "
                f"often that both sides must divide by {multiple}"
            )
        found.append((height, width))
    return found


def pad_low_res(low_res: np.ndarray, stages: Sequence[config.Stage]) -> np.ndarray:
    """Pictures (p, h, w, 3), the last row and column repeated until all stages can enlarge them."""
    unit, factor = 1, 1
    for stage in stages:
        factor *= stage.factor
        multiple = stage.model.multiple()
        unit = math.lcm(unit, multiple // math.gcd(multiple, factor))
    missing = [-side % unit for side in low_res.shape[1:3]]
    return np.pad(low_res, [(0, 0), *((0, n) for n in missing), (0, 0)], mode="edge")
