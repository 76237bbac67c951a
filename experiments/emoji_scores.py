"""Does a cascade that draws emoji in several styles compose what training showed apart?

Images of seen captions, and of held-out skin tones and styles of known subjects, are judged by
small classifiers of real images and by an oracle of skin tones; what they say of the real images
of the same captions is the ceiling. Closest training images tell copying from composing.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from lib import command, emoji_bench, emoji_pages
from lib.cascade_options import CascadeOptions
from lib.emoji_bench import Splits, Wording
from lib.emoji_images import BY_STYLE, BY_TONE, SEEN, SIDE
from lib.emoji_measures import Bench, Drawn, measure
from lib.image_cache import ImageCache
from lib.results import collect_settings, shell_command, write_page, write_results

from imagen_jax import config
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.load import load
from imagen_jax.types import Pixels

NAME = "emoji_scores"
GROUPS = (SEEN, BY_TONE, BY_STYLE)


@dataclasses.dataclass(frozen=True)
class Options(CascadeOptions):
    """Cascade, and how many of its images are judged; `workdir` has the judge's weights, too."""

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


def run(options: Options) -> None:
    """Sample, judge, compare; writes emoji_scores.png, .md, .json, _images.png, _neighbours.png.

    Errors: ValueError for a stage that the cascade does not have or whose side is no multiple of
    32, and for a dataset that is not there.
    """
    imagen = load(options.cascade)
    size = imagen.select_stages(None, options.last_stage)[-1].stage.size
    config.require(
        size % SIDE == 0, f"last_stage={options.last_stage}: {size} px, no multiple of {SIDE}"
    )
    splits = emoji_bench.read_splits(options.data_dir)
    bench = emoji_bench.make_bench(splits, options.workdir / NAME, seed=options.seed)
    kept = collect_settings(options, imagen.experiments[0], leave_out=("batch_size", "part"))
    results: dict[str, Any] = {"judge": judge_results(bench, splits), "groups": {}}
    write_results(options.out, NAME, kept, results)
    drawn = {}
    for number, group in enumerate(GROUPS):
        split = splits.train if group == SEEN else splits.held_out
        chosen, others = emoji_bench.draw_group(
            group, split, bench, images=options.images, seed=options.seed
        )
        captions = emoji_bench.choose_captions(chosen, options.wording, seed=options.seed)
        images = _sample(imagen, captions, 1_000_000 * number, options)
        drawn[group] = Drawn(images, captions, chosen, others)
        results["groups"][group] = measure(drawn[group], bench, seen=group == SEEN)
        write_results(options.out, NAME, kept, results)
    emoji_pages.save_images(options.out / f"{NAME}_images.png", drawn)
    emoji_pages.save_neighbours(options.out / f"{NAME}_neighbours.png", drawn, bench)
    page = emoji_pages.make_page(results, vars(options), name=NAME)
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def judge_results(bench: Bench, splits: Splits) -> dict[str, Any]:
    """Describe the judge, and score real images that it was not trained on."""
    unseen = {"validation": splits.validation}
    unseen |= {group: splits.held_out.of_group(group) for group in (BY_TONE, BY_STYLE)}
    known = {name: split.of_subjects(bench.judge.subjects) for name, split in unseen.items()}
    return {
        "parameters": bench.judge.count_parameters(),
        "subjects": len(bench.judge.subjects),
        "combinations": len(bench.catalogue.combinations),
        "temperature": bench.temperature,
        "real": {
            name: bench.shares(split.images, split.meant)
            for name, split in known.items()
            if len(split.meant)
        },
    }


def _sample(imagen: Imagen, captions: list[str], noise: int, options: Options) -> Pixels:
    parts = []
    for start in range(0, len(captions), options.part):
        cache = ImageCache(
            folder=options.workdir / NAME,
            seed=options.seed + noise + start,
            batch_size=options.batch_size,
        )
        some = captions[start : start + options.part]
        parts.append(cache.sample(imagen, some, last_stage=options.last_stage))
    return np.concatenate(parts)


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
