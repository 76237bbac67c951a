"""Verdicts of the oracle on settings that sample the same captions from the same noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from matplotlib.figure import Figure

from imagen_jax.evaluate import alignment, eval_set
from imagen_jax.types import Pixels
from lib.scoring import paired

SPLITS = {"seen": "validation", "held out": "held_out"}
OBJECTS = {"one": "one object", "two": "two objects"}
ALL = "all captions"

Compared = dict[str, dict[str, dict[str, int | float]]]  # setting -> group -> fields of `Paired`


@dataclasses.dataclass(frozen=True)
class Part:
    """Some captions, the seed of their noise, and which of them are of which group."""

    captions: list[str]
    seed: int
    groups: dict[str, list[int]]


def draw_parts(dataset: str, *, images: int, size: int, seed: int) -> list[Part]:
    """New captions of every split in parts of `size`, and the splits in turns.

    So the results of an interrupted experiment are of every kind.
    """
    exams = {
        kind: eval_set.draw_eval_set(dataset, split, count=images, seed=seed, size=64)
        for kind, split in SPLITS.items()
    }
    return list(_in_turns(exams, size))


def _in_turns(exams: Mapping[str, eval_set.EvalSet], size: int) -> Iterator[Part]:
    for start in range(0, max(len(e.captions) for e in exams.values()), size):
        for kind, drawn in exams.items():
            some = dataclasses.replace(
                drawn,
                captions=drawn.captions[start : start + size],
                real=drawn.real[start : start + size],
            )
            groups = {f"{kind}, {OBJECTS[name]}": rows for name, rows in some.kinds().items()}
            yield Part(some.captions, start, groups)


def join_groups(parts: Sequence[Part]) -> dict[str, list[int]]:
    """The groups of the parts' captions, one part after the other."""
    groups: dict[str, list[int]] = {}
    before = 0
    for part in parts:
        for group, rows in part.groups.items():
            groups.setdefault(group, []).extend(before + row for row in rows)
        before += len(part.captions)
    return {**groups, ALL: list(range(before))}


def judge(images: Pixels, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
    """Which images show all that their captions state."""
    pairs = zip(images, captions, strict=True)
    return np.array([alignment.judge(*pair).all for pair in pairs], bool)


def compare(
    verdicts: Mapping[str, Sequence[bool] | np.ndarray], groups: Mapping[str, Sequence[int]]
) -> Compared:
    """For each setting and group of captions, what `Paired` holds; the first is the reference."""
    arrays = {name: np.array(found) for name, found in verdicts.items()}
    reference = next(iter(arrays.values()))
    return {
        name: {
            group: dataclasses.asdict(paired(found[rows], reference[rows]))
            for group, rows in groups.items()
        }
        for name, found in arrays.items()
    }


def plot_differences(
    results: Mapping[str, Mapping[str, Mapping[str, int | float]]], *, size: tuple[int, int]
) -> Figure:
    """Each setting's difference to the reference with two standard errors, by kind of caption."""
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    groups = list(next(iter(results.values())))
    compared = list(results)[1:]
    for index, name in enumerate(compared):
        rows = results[name].values()
        places = np.arange(len(groups)) + 0.15 * (index - (len(compared) - 1) / 2)
        axis.errorbar(
            places,
            [row["difference"] for row in rows],
            [2 * row["error"] for row in rows],
            fmt="o",
            capsize=3,
            label=name,
        )
    axis.axhline(0, color="gray", lw=1)
    axis.axhspan(-1, 1, color="gray", alpha=0.15)
    axis.set_xticks(np.arange(len(groups)), groups, fontsize=8)
    axis.set(ylabel=f"points more than {next(iter(results))}")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def comparison_rows(results: Compared, *, column: str) -> list[dict[str, str]]:
    """A table's rows, one for each setting and group; `column` heads the settings."""
    reference = next(iter(results))
    return [
        {
            column: name,
            "captions": group,
            "number": str(row["captions"]),
            "right, %": f"{row['share']:.1f}",
            "difference": "-" if name == reference else f"{row['difference']:+.1f}",
            "standard error": "-" if name == reference else f"{row['error']:.1f}",
        }
        for name, groups in results.items()
        for group, row in groups.items()
    ]
