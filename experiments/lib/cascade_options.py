"""Options of experiments that judge the images of a trained cascade."""

import dataclasses
from pathlib import Path

from imagen_jax import config


@dataclasses.dataclass(frozen=True)
class CascadeOptions:
    """The cascade, what is sampled from it, and where that is stored."""

    cascade: str = "shapes"
    """An embedded cascade's name, a folder of runs, or an exported cascade."""
    last_stage: str = "sr64"
    """Judge the images of this stage; every later one is left out."""
    images: config.Count = 300
    """Captions of combinations seen in training, and as many of held-out ones."""
    out: Path = Path("results")
    """Folder for plot, table, numbers and images."""
    workdir: Path = Path("runs/experiments")
    """Folder for sampled images, which are not sampled again; delete it after changing code."""
    seed: config.Seed = 1
    """Seed of the captions and of the noise."""
    part: config.Count = 100
    """Captions that are sampled and stored before the next ones are."""
    batch_size: config.Count = 50
    """Images sampled at once."""

    def __post_init__(self) -> None:
        config.check_options(self)
