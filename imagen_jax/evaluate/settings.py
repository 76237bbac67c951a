"""Settings of an evaluation, without jax."""

import dataclasses

from imagen_jax import config


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Prompts of an evaluation, and how they are sampled."""

    images: config.Images = 64
    """Prompts of each kind, seen and held out."""
    sweep: tuple[config.Finite, ...] = (1.0, 2.0, 4.0)
    """Guidance weights of the base stage to compare; none to skip."""
    sweep_images: config.Images = 64
    """Prompts for each weight of the sweep."""
    grid: config.Images = 16
    """Prompts in the grid."""
    seed: config.Seed = 1
    """Seed of the prompts and of the noise."""
    batch_size: config.BatchSize = 32
    """Images sampled at once."""
