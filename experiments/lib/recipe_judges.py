"""What judges the images of a base stage, by the dataset that it is trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from imagen_jax import config
from imagen_jax.evaluate import frechet
from imagen_jax.evaluate.eval_set import EvalSet, balanced_eval_set
from imagen_jax.imagen import Imagen
from lib import emoji_bench, scoring
from lib.emoji_images import SEEN, SIDE, RealEmoji, at_side
from lib.emoji_measures import Bench
from lib.variants import Variant

EMOJI = "emoji/styles"
Scores = Mapping[str, Any]


class RecipeJudge(Protocol):
    """Judges variants of a base stage on the same captions."""

    captions: str  # what they are, in words

    def judges(self, row: Variant) -> bool:
        """Whether the row has a meaning for the dataset."""
        ...

    def noise_error(self, imagen: Imagen, row: Variant) -> float:
        """As `scoring.noise_error`, on images that training lacks."""
        ...

    def score(self, imagen: Imagen, row: Variant) -> Scores:
        """Sample, and score what was sampled."""
        ...

    def cells(self, scores: Scores) -> dict[str, str]:
        """Columns of a table."""
        ...

    def marks(self, scores: Scores) -> dict[str, float]:
        """What a plot shows, in percent."""
        ...


def make_judge(
    experiment: config.Experiment, *, images: int, seed: int, batch_size: int, folders: Folders
) -> RecipeJudge:
    """The judge of an experiment's dataset. Errors: ValueError for one that nothing judges."""
    sampling = Sampling(images, seed, batch_size)
    if experiment.data.dataset == EMOJI:
        return load_emoji_judge(experiment, sampling, folders)
    return ShapesJudge(experiment.data.dataset, experiment.stage.size, sampling)


@dataclasses.dataclass(frozen=True)
class Folders:
    """Where datasets are, and where weights of what judges are stored."""

    data: Path
    judge: Path


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How many captions, from which seed, how many at once."""

    images: int
    seed: int
    batch_size: int

    def given(self) -> dict[str, int]:
        """What every call that samples or adds noise is given."""
        return {"seed": self.seed, "batch_size": self.batch_size}


@dataclasses.dataclass(frozen=True)
class ShapesJudge:
    """The oracle of shapes, on new captions with one object and with two."""

    dataset: str
    size: int
    sampling: Sampling
    captions = "new captions, half with one object and half with two"

    def judges(self, row: Variant) -> bool:
        """All of them."""
        return True

    def noise_error(self, imagen: Imagen, row: Variant) -> float:
        """On the real images of the captions."""
        return scoring.noise_error(imagen, self._exam(row), **self.sampling.given())

    def score(self, imagen: Imagen, row: Variant) -> Scores:
        """Shares by kind of caption and attribute."""
        return scoring.sample_and_score(imagen, self._exam(row), **self.sampling.given())

    def cells(self, scores: Scores) -> dict[str, str]:
        """Attributes, by number of objects."""
        return scoring.attribute_cells(scores)

    def marks(self, scores: Scores) -> dict[str, float]:
        """Shares right in all attributes, and in colour."""
        return {
            f"{attribute}, {kind}": 100 * scores[kind][attribute]
            for kind in ("one", "two")
            for attribute in ("all", "colour")
        }

    def _exam(self, row: Variant) -> EvalSet:
        return balanced_eval_set(
            self.dataset,
            count=self.sampling.images,
            seed=self.sampling.seed,
            size=self.size,
            plain=row.plain,
        )


@dataclasses.dataclass(frozen=True)
class EmojiRecipeJudge:
    """Classifiers of real emoji, on captions of training; noise errors are those of validation."""

    bench: Bench
    chosen: RealEmoji
    reference: frechet.ReferenceSet
    unseen: EvalSet
    sampling: Sampling
    captions = "captions of training"

    def judges(self, row: Variant) -> bool:
        """All but those of the wording of shapes."""
        return row.plain is None

    def noise_error(self, imagen: Imagen, row: Variant) -> float:
        """On images of validation."""
        return scoring.noise_error(imagen, self.unseen, **self.sampling.given())

    def score(self, imagen: Imagen, row: Variant) -> Scores:
        """Percent by part of the caption, and the Fréchet distance to other images of training."""
        captions = emoji_bench.choose_captions(self.chosen, "any", seed=self.sampling.seed)
        (images,) = imagen.sample(captions, **self.sampling.given()).values()
        return {
            **self.bench.shares(at_side(images), self.chosen.meant),
            "frechet": self.reference.distance(images),
        }

    def cells(self, scores: Scores) -> dict[str, str]:
        """Shares, and the distance."""
        percents = ("style", "tone", "subject", "subject_5")
        return {
            **{name.replace("_", ", top "): f"{scores[name]:.0f}" for name in percents},
            "Fréchet": f"{scores['frechet']:.2f}",
        }

    def marks(self, scores: Scores) -> dict[str, float]:
        """Subjects among the first five, and styles."""
        return {"subject, top 5": scores["subject_5"], "style": scores["style"]}


def load_emoji_judge(
    experiment: config.Experiment, sampling: Sampling, folders: Folders
) -> EmojiRecipeJudge:
    """The judge of `emoji_scores.py`, and what a stage of 32 px or a multiple is asked."""
    size = experiment.stage.size
    config.require(size % SIDE == 0, f"stage.size={size}: emoji are judged at multiples of {SIDE}")
    splits = emoji_bench.read_splits(folders.data)
    bench = emoji_bench.make_bench(splits, folders.judge, seed=sampling.seed)
    chosen, others = emoji_bench.draw_group(
        SEEN, splits.train, bench, images=sampling.images, seed=sampling.seed
    )
    validation = splits.validation
    validation = validation.select(range(min(sampling.images, len(validation.meant))))
    words = emoji_bench.choose_captions(validation, "any", seed=sampling.seed)
    return EmojiRecipeJudge(
        bench,
        chosen,
        frechet.load_reference(others.at(size), chosen.at(size)),
        EvalSet(words, validation.at(size)),
        sampling,
    )
