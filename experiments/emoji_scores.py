"""Does a cascade that draws emoji in several styles compose what training showed apart?

Images of seen captions, and of held-out skin tones and styles of known subjects, are judged by
small classifiers of real images and by an oracle of skin tones; what they say of the real images
of the same captions is the ceiling. Closest training images tell copying from composing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lib import command, emoji_judge, emoji_pages, emoji_ranks, emoji_tones
from lib.emoji_images import BY_STYLE, BY_TONE, SEEN, SIDE, RealEmoji, read_split
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
class Options:
    """Cascade, and how many of its images are judged."""

    cascade: str = "runs/emoji"
    """A folder of runs, an exported cascade, or one stage."""
    last_stage: str = "sr128"
    """Judge the images of this stage."""
    images: config.Count = 300
    """Captions of each group: seen, held out by skin tone, held out by style."""
    wording: Literal["any", "main"] = "any"
    """One of an image's captions by chance, or its main one."""
    data_dir: Path = Path("data")
    """Folder of the dataset emoji/styles."""
    out: Path = Path("results")
    """Folder for plot, table, numbers and images."""
    workdir: Path = Path("runs/experiments")
    """Folder for sampled images and the judge's weights; delete it after changing code."""
    seed: config.Seed = 1
    """Seed of captions, of noise and of the judge."""
    part: config.Count = 100
    """Captions that are sampled and stored before the next ones are."""
    batch_size: config.Count = 50
    """Images sampled at once."""

    def __post_init__(self) -> None:
        config.check_options(self)


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
    train, validation, held_out = (
        read_split(split, options.data_dir) for split in ("train", "validation", "held_out")
    )
    bench = make_bench(train, validation, held_out, options)
    kept = collect_settings(options, imagen.experiments[0], leave_out=("batch_size", "part"))
    results: dict[str, Any] = {"judge": judge_results(bench, validation, held_out), "groups": {}}
    write_results(options.out, NAME, kept, results)
    drawn = {}
    for number, group in enumerate(GROUPS):
        chosen, others = draw_group(group, train if group == SEEN else held_out, bench, options)
        captions = choose_captions(chosen, options)
        images = _sample(imagen, captions, 1_000_000 * number, options)
        drawn[group] = Drawn(images, captions, chosen, others)
        results["groups"][group] = measure(drawn[group], bench, seen=group == SEEN)
        write_results(options.out, NAME, kept, results)
    emoji_pages.save_images(options.out / f"{NAME}_images.png", drawn)
    emoji_pages.save_neighbours(options.out / f"{NAME}_neighbours.png", drawn, bench)
    page = emoji_pages.make_page(results, vars(options), name=NAME)
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def make_bench(
    train: RealEmoji, validation: RealEmoji, held_out: RealEmoji, options: Options
) -> Bench:
    """Train what judges, or load it."""
    folder = options.workdir / NAME
    judge = emoji_judge.load_judge(train, folder, seed=options.seed)
    known = validation.of_subjects(judge.subjects)
    judge = judge.calibrate(known.images, known.meant)
    oracle = emoji_tones.fit_tones(train.images, train.meant)
    every = (*train.meant, *validation.meant, *held_out.meant)
    catalogue = emoji_ranks.make_catalogue(every, judge.subjects, judge.styles)
    temperature = emoji_ranks.choose_temperature(catalogue, oracle, known.images, known.meant)
    return Bench(judge, oracle, catalogue, temperature, train)


def judge_results(bench: Bench, validation: RealEmoji, held_out: RealEmoji) -> dict[str, Any]:
    """Describe the judge, and score real images that it was not trained on."""
    splits = {"validation": validation} | {g: held_out.of_group(g) for g in (BY_TONE, BY_STYLE)}
    known = {name: split.of_subjects(bench.judge.subjects) for name, split in splits.items()}
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


def draw_group(
    group: str, split: RealEmoji, bench: Bench, options: Options
) -> tuple[RealEmoji, RealEmoji]:
    """Some real images of a group, and as many others where there are so many.

    Each subject comes once in each style before any comes again: a few have many images.
    Errors: ValueError for a group of which there are too few images.
    """
    found = split.of_group(group).of_subjects(bench.judge.subjects)
    count = min(options.images, len(found.meant) - 2)
    config.require(count > 1, f"the dataset has {len(found.meant)} images {group}: too few")
    times: Counter[tuple[str, str]] = Counter()
    turns = []
    for row in np.random.default_rng(options.seed).permutation(len(found.meant)):
        one = found.meant[row]
        turns.append((times[one.subject, one.style], len(turns), row))
        times[one.subject, one.style] += 1
    order = [row for _, _, row in sorted(turns)]
    return found.select(order[:count]), found.select(order[count : 2 * count])


def choose_captions(real: RealEmoji, options: Options) -> list[str]:
    """One caption for each image."""
    draw = np.random.default_rng(options.seed + 1)
    chosen = [int(draw.integers(len(own))) for own in real.captions]
    number = chosen if options.wording == "any" else [0] * len(chosen)
    return [own[n] for own, n in zip(real.captions, number, strict=True)]


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
