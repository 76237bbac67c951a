"""Images of a cascade for what is judged of emoji: captions of each group, sampled and stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagen_jax import config
from imagen_jax.imagen import Imagen
from imagen_jax.types import Pixels
from lib import emoji_bench
from lib.cascade_options import CascadeOptions
from lib.emoji_bench import Splits, Wording
from lib.emoji_images import BY_STYLE, BY_TONE, SEEN, SIDE
from lib.emoji_measures import Bench, Drawn
from lib.image_cache import ImageCache

GROUPS = (SEEN, BY_TONE, BY_STYLE)
FOLDER = "emoji_scores"  # of images and the judge's weights, in the workdir


@dataclasses.dataclass(frozen=True)
class EmojiOptions(CascadeOptions):
    """What experiments that judge emoji have in common."""

    cascade: str = "runs/emoji"
    """A folder of runs, an exported cascade, or one stage."""
    last_stage: str = "sr128"
    """Judge the images of this stage."""
    images: config.Count = 300
    """Captions of each group: seen, held out by skin tone, held out by style."""
    wording: Wording = "any"
    """One of an image's captions by chance, or its main one."""
    data_dir: Path = Path("data")
    """Folder of the dataset emoji/styles."""

    @property
    def folder(self) -> Path:
        """The folder of sampled images and of the judge."""
        return self.workdir / FOLDER


def require_side(imagen: Imagen, last_stage: str) -> None:
    """Check that images of a stage can be judged. Errors: ValueError, also for no such stage."""
    size = imagen.select_stages(None, last_stage)[-1].stage.size
    config.require(size % SIDE == 0, f"last_stage={last_stage}: {size} px, no multiple of {SIDE}")


def sample_groups(
    imagen: Imagen, splits: Splits, bench: Bench, options: EmojiOptions
) -> Iterator[tuple[str, Drawn]]:
    """Each group with its sampled images. Errors: as `emoji_bench.draw_group`."""
    for number, group in enumerate(GROUPS):
        split = splits.train if group == SEEN else splits.held_out
        chosen, others = emoji_bench.draw_group(
            group, split, bench, images=options.images, seed=options.seed
        )
        captions = emoji_bench.choose_captions(chosen, options.wording, seed=options.seed)
        images = _sample(imagen, captions, 1_000_000 * number, options)
        yield group, Drawn(images, captions, chosen, others)


def _sample(imagen: Imagen, captions: list[str], noise: int, options: EmojiOptions) -> Pixels:
    parts = []
    for start in range(0, len(captions), options.part):
        cache = ImageCache(
            folder=options.folder,
            seed=options.seed + noise + start,
            batch_size=options.batch_size,
        )
        some = captions[start : start + options.part]
        parts.append(cache.sample(imagen, some, last_stage=options.last_stage))
    return np.concatenate(parts)
