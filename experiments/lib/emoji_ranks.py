"""Ranks among all combinations of subject, skin tone and style, from log-probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Float64

from imagen_jax.types import Pixels
from lib.emoji_images import Combination
from lib.emoji_tones import ToneOracle, Tones

# Colours of an image are no independent witnesses of its tone: their evidence is divided.
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """All combinations that there are, those of one subject and style beside each other."""

    combinations: tuple[Combination, ...]
    subjects: tuple[str, ...]
    styles: tuple[str, ...]

    def rank(
        self,
        subject: Float[np.ndarray, "n subjects"],
        style: Float[np.ndarray, "n styles"],
        tones: Float64[np.ndarray, "n combinations"],
        meant: Sequence[Combination],
    ) -> np.ndarray:
        """Count the other combinations that are as probable as the one that is meant, or more so.

        The log-probability of a combination is that of its subject, of its style, and of its tones
        given both. Shapes: (n,). Errors: ValueError for one that is not in the catalogue.
        """
        places = {one: place for place, one in enumerate(self.combinations)}
        if missing := [one for one in meant if one not in places]:
            raise ValueError(f"{missing[0]} is not among the combinations that are ranked")
        numbers = {name: number for number, name in enumerate(self.subjects)}
        looks = {name: number for number, name in enumerate(self.styles)}
        of_subject = [numbers[one.subject] for one in self.combinations]
        of_style = [looks[one.style] for one in self.combinations]
        scores = subject[:, of_subject] + style[:, of_style] + tones
        own = scores[np.arange(len(meant)), [places[one] for one in meant]]
        return (scores >= own[:, None]).sum(axis=1) - 1

    def tone_scores(
        self, oracle: ToneOracle, images: Pixels, *, temperature: float
    ) -> Float64[np.ndarray, "n combinations"]:
        """Log-probability of each combination's tones among those of its subject and style."""
        found = np.zeros((len(images), len(self.combinations)))
        styles = np.array([one.style for one in self.combinations])
        for style in self.styles:
            columns = np.flatnonzero(styles == style)
            kinds: list[Tones] = sorted({self.combinations[c].tones for c in columns})
            odds = oracle.log_odds(images, style, kinds) / temperature
            found[:, columns] = odds[:, [kinds.index(self.combinations[c].tones) for c in columns]]
        starts = self._starts()
        sums = np.logaddexp.reduceat(found, starts, axis=1)
        sizes = np.diff([*starts, len(self.combinations)])
        return found - np.repeat(sums, sizes, axis=1)

    def _starts(self) -> list[int]:
        """Where each run of combinations of one subject and style begins."""
        kinds = [(one.subject, one.style) for one in self.combinations]
        return [place for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind]


def make_catalogue(
    meant: Iterable[Combination], subjects: Sequence[str], styles: Sequence[str]
) -> Catalogue:
    """All combinations of known subjects and styles."""
    names, looks = set(subjects), set(styles)
    known = {one for one in meant if one.subject in names and one.style in looks}
    ordered = sorted(known, key=lambda one: (one.subject, one.style, one.tones))
    return Catalogue(tuple(ordered), tuple(subjects), tuple(styles))


def choose_temperature(
    catalogue: Catalogue, oracle: ToneOracle, images: Pixels, meant: Sequence[Combination]
) -> float:
    """The temperature at which the tones of real images are most probable."""
    places = {one: place for place, one in enumerate(catalogue.combinations)}
    columns = [places[one] for one in meant]
    rows = np.arange(len(meant))

    def likelihood(temperature: float) -> float:
        scores = catalogue.tone_scores(oracle, images, temperature=temperature)
        return float(scores[rows, columns].mean())

    return max(TEMPERATURES, key=likelihood)


def ranks_of(
    scores: Float[np.ndarray, "n classes"], right: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Count the other classes that score as much as the right one, or more."""
    own = scores[np.arange(len(right)), right]
    return (scores >= own[:, None]).sum(axis=1) - 1
