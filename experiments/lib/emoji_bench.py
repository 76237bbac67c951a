"""All that judges emoji, made of real images, and the captions that a cascade is asked for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from imagen_jax import config
from lib import emoji_judge, emoji_ranks, emoji_tones
from lib.emoji_images import RealEmoji, read_split
from lib.emoji_measures import Bench

Wording = Literal["any", "main"]  # one of an image's captions by chance, or its main one


@dataclasses.dataclass(frozen=True)
class Splits:
    """The dataset's images, by split."""

    train: RealEmoji
    validation: RealEmoji
    held_out: RealEmoji


def read_splits(data_dir: Path) -> Splits:
    """Read all of emoji/styles. Errors: as `emoji_images.read_split`."""
    return Splits(*(read_split(split, data_dir) for split in ("train", "validation", "held_out")))


def make_bench(splits: Splits, folder: Path, *, seed: int) -> Bench:
    """Train what judges, or load it from `folder`."""
    judge = emoji_judge.load_judge(splits.train, folder, seed=seed)
    known = splits.validation.of_subjects(judge.subjects)
    judge = judge.calibrate(known.images, known.meant)
    oracle = emoji_tones.fit_tones(splits.train.images, splits.train.meant)
    every = (*splits.train.meant, *splits.validation.meant, *splits.held_out.meant)
    catalogue = emoji_ranks.make_catalogue(every, judge.subjects, judge.styles)
    temperature = emoji_ranks.choose_temperature(catalogue, oracle, known.images, known.meant)
    return Bench(judge, oracle, catalogue, temperature, splits.train)


def draw_group(
    group: str, split: RealEmoji, bench: Bench, *, images: int, seed: int
) -> tuple[RealEmoji, RealEmoji]:
    """Some real images of a group, and as many others where there are so many.

    Each subject comes once in each style before any comes again: a few have many images.
    Errors: ValueError for a group of which there are too few images.
    """
    found = split.of_group(group).of_subjects(bench.judge.subjects)
    count = min(images, len(found.meant) - 2)
    config.require(count > 1, f"the dataset has {len(found.meant)} images {group}: too few")
    times: Counter[tuple[str, str]] = Counter()
    turns = []
    for row in np.random.default_rng(seed).permutation(len(found.meant)):
        one = found.meant[row]
        turns.append((times[one.subject, one.style], len(turns), row))
        times[one.subject, one.style] += 1
    order = [row for _, _, row in sorted(turns)]
    return found.select(order[:count]), found.select(order[count : 2 * count])


def choose_captions(real: RealEmoji, wording: Wording, *, seed: int) -> list[str]:
    """One caption for each image."""
    draw = np.random.default_rng(seed + 1)
    chosen = [int(draw.integers(len(own))) for own in real.captions]
    number = chosen if wording == "any" else [0] * len(chosen)
    return [own[n] for own, n in zip(real.captions, number, strict=True)]
