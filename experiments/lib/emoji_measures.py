"""What is measured of a group of sampled emoji, beside the real images of the same captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagen_jax.evaluate import frechet
from imagen_jax.evaluate.sharpness import sharpness
from imagen_jax.types import Pixels
from lib.emoji_images import Combination, RealEmoji, at_side
from lib.emoji_judge import EmojiJudge
from lib.emoji_neighbours import Neighbours, find_neighbours
from lib.emoji_ranks import Catalogue, ranks_of
from lib.emoji_tones import ToneOracle, has_one_tone

TOP = 5
Shares = dict[str, float | None]  # percent of images; None where nothing could be judged


@dataclasses.dataclass(frozen=True)
class Bench:
    """All that judges: classifiers, the oracle of skin tones, what is ranked, training images."""

    judge: EmojiJudge
    oracle: ToneOracle
    catalogue: Catalogue
    temperature: float
    train: RealEmoji

    def shares(self, images: Pixels, meant: Sequence[Combination]) -> Shares:
        """Percent of images in which each part of what is meant is found.

        Shapes: images (n, 32, 32, 3).
        """
        subject, style = self.judge.subject(images), self.judge.style(images)
        tones = self.catalogue.tone_scores(self.oracle, images, temperature=self.temperature)
        ranks = self.catalogue.rank(subject, style, tones, meant)
        subjects, styles = self.judge.numbers(meant)
        of_subject = ranks_of(subject, subjects)
        toned = has_one_tone(meant, self.oracle)
        found = self.oracle.judge(images, [one.style for one in meant])
        right = np.array([(tone,) == one.tones for tone, one in zip(found, meant, strict=True)])
        return {
            "combination": _percent(ranks < 1),
            "combination_5": _percent(ranks < TOP),
            "subject": _percent(of_subject < 1),
            "subject_5": _percent(of_subject < TOP),
            "style": _percent(ranks_of(style, styles) < 1),
            "tone": _percent(right[toned]),
            "subject_and_tone": _percent((right & (of_subject < 1))[toned]),
        }


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Sampled images of a group, their captions, and real ones."""

    images: Pixels  # at the stage's side
    captions: list[str]
    real: RealEmoji  # of the captions
    others: RealEmoji  # of the same group

    def neighbours(self, train: RealEmoji, *, seen: bool) -> tuple[Neighbours, Neighbours]:
        """The closest training images of the sampled and of the real ones.

        A real image that is in training is not its own neighbour.
        """
        own = self.real.rows if seen else ()
        return (
            find_neighbours(at_side(self.images), train.images),
            find_neighbours(self.real.images, train.images, leave_out=own),
        )


def measure(drawn: Drawn, bench: Bench, *, seen: bool) -> dict[str, Any]:
    """Shares of sampled and of real images, and how the images look."""
    side = drawn.images.shape[1]
    real = drawn.real.at(side)
    results: dict[str, Any] = {
        "images": len(drawn.captions),
        "toned": int(has_one_tone(drawn.real.meant, bench.oracle).sum()),
        "sampled": bench.shares(at_side(drawn.images), drawn.real.meant),
        "real": bench.shares(drawn.real.images, drawn.real.meant),
        "sharpness": sharpness(drawn.images) / sharpness(real),
        "neighbours": _compare(drawn, bench.train, seen=seen),
    }
    if len(drawn.others.meant) > 1:
        reference = frechet.load_reference(drawn.others.at(side), real)
        results["frechet"] = reference.distance(drawn.images)
        results["frechet_real"] = reference.floor
    return results


def _compare(drawn: Drawn, train: RealEmoji, *, seen: bool) -> dict[str, float | None]:
    """Medians of distances to training images, and to the real images of the captions."""
    sampled, real = drawn.neighbours(train, seen=seen)
    apart = at_side(drawn.images).astype(np.float64) - drawn.real.images
    own = np.sqrt(np.square(apart).mean(axis=(1, 2, 3)))
    return {
        "sampled": float(np.median(sampled.distances)),
        "real": float(np.median(real.distances)),
        "own": float(np.median(own)),
        "own_nearer": None if seen else _percent(own < sampled.distances),
    }


def _percent(found: np.ndarray) -> float | None:
    return 100.0 * float(found.mean()) if len(found) else None
