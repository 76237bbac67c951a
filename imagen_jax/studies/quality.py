"""What pictures of captions score: alignment, Fréchet distance, saturation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from imagen_jax.evaluate import alignment, frechet
from imagen_jax.evaluate.detector import SMALLEST
from imagen_jax.evaluate.eval_set import EvalSet, balanced_eval_set
from imagen_jax.types import Pixels

COLUMNS = ("colour", "shape", "size", "relation", "fill", "all")  # attributes in tables
NOTE = (  # what the columns of `cells` mean
    "Columns by attribute: captions that the oracle found right, in percent. Fréchet: distance to "
    "other real pictures on the descriptors of `evaluate/frechet.py`; that of real pictures of the "
    "same captions is its floor. At limits: channel values at 0 or 255, in percent."
)


@dataclasses.dataclass(frozen=True)
class Judge:
    """An exam, and other real pictures to measure distances from."""

    exam: EvalSet
    reference: frechet.ReferenceSet

    def measure(self, pictures: Pixels) -> dict[str, float]:
        """What `pictures` of the captions score; the exam's own score the ceiling and the floor.

        Units: shares in [0, 1] by attribute of the captions; `frechet` as in evaluate.frechet;
        `saturated` the share of channel values at 0 or 255.
        """
        shares = alignment.score(list(pictures), self.exam.captions)
        return {
            **{attribute: share for attribute, (share, _) in shares.items()},
            "frechet": self.reference.distance(pictures),
            "saturated": float(np.mean((pictures == 0) | (pictures == 255))),
        }

    def shown(self, count: int) -> slice:
        """About `count` captions, from the first to the last kind."""
        step = max(1, len(self.exam.captions) // count)
        return slice(0, step * count, step)


def judge(dataset: str, *, size: int, count: int, others: int, seed: int) -> Judge:
    """`count` new captions in a dataset's manner, and `others` more real pictures, at `size`.

    Errors: ValueError for pictures that the oracle cannot judge: no shapes, or too small.
    """
    if size < SMALLEST:
        raise ValueError(
            f"the oracle judges pictures of {SMALLEST} px and more, not of {size}: "
            "choose a later stage"
        )
    exam = balanced_eval_set(dataset, count=count, seed=seed, size=size)
    other = balanced_eval_set(dataset, count=others, seed=seed + 1, size=size)
    return Judge(exam, frechet.load_reference(other.real, exam.real))


def cells(measured: Mapping[str, Any]) -> dict[str, str]:
    """Scores as the cells of a table, shares in percent; a dash where nothing could be judged."""
    return {
        **{n: f"{100 * measured[n]:.1f}" if n in measured else "-" for n in COLUMNS},
        "Fréchet": f"{measured['frechet']:.2f}",
        "at limits": f"{100 * measured['saturated']:.2f}",
    }
