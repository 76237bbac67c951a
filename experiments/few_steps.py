"""Twenty steps of DPM-Solver++ against the ancestral sampler's 256 (arXiv:2211.01095).

The claim: they align with their captions equally well, to a point. Every setting of the base stage
samples the same captions from the same noise, and its verdicts are compared caption by caption.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lib import command
from lib.image_cache import ImageCache
from lib.results import Page, collect_settings, shell_command, write_page, write_results
from lib.scoring import paired
from matplotlib.figure import Figure
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.evaluate import alignment, eval_set
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.load import load

NAME = "few_steps"
REFERENCE = "ancestral, 256 steps"
SETTINGS: dict[str, dict[str, Any]] = {  # changes to the base stage's sampler
    REFERENCE: {"kind": "ancestral", "steps": 256},
    "dpmpp_2m, 20 steps": {"kind": "dpmpp_2m", "steps": 20},
    "ddim, 20 steps": {"kind": "ddim", "steps": 20},
    "ancestral, 20 steps": {"kind": "ancestral", "steps": 20},
    "dpmpp_2m, 64 steps": {"kind": "dpmpp_2m", "steps": 64},
    "ancestral, 256 steps, gamma 0": {"kind": "ancestral", "steps": 256, "stochasticity": 0.0},
}
SPLITS = {"seen": "validation", "held out": "held_out"}
OBJECTS = {"one": "one object", "two": "two objects"}
ALL = "all captions"


@dataclasses.dataclass(frozen=True)
class Options:
    """Cascade, and settings of its base stage."""

    cascade: str = "shapes"
    """An embedded cascade's name, or a folder of runs."""
    settings: tuple[str, ...] = (REFERENCE, "dpmpp_2m, 20 steps")
    """Settings of the base stage, the first of which the others are compared with."""
    last_stage: str = "sr64"
    """Judge the images of this stage; every later stage samples as configured."""
    images: config.Count = 600
    """Captions of combinations seen in training, and as many of held-out ones."""
    out: Path = Path("results")
    """Folder for plot, table and numbers."""
    workdir: Path = Path("runs/experiments")
    """Folder for sampled images, which are not sampled again; delete it after changing code."""
    seed: config.Seed = 1
    """Seed of the captions and of the noise."""
    part: config.Count = 100
    """Captions that go through every setting before the next ones do; then numbers are kept."""
    batch_size: config.Count = 50
    """Images sampled at once."""

    def __post_init__(self) -> None:
        config.check_options(self)
        unknown = [name for name in self.settings if name not in SETTINGS]
        config.require(
            not unknown, f"settings: there is no {unknown[:1]}; there are {list(SETTINGS)}"
        )
        config.require(
            len(set(self.settings)) > 1, f"settings={self.settings}: one alone compares nothing"
        )


def run(options: Options) -> None:
    """Sample, judge, compare; writes few_steps.png, .md and .json.

    Errors: ValueError for a cascade that is not of shapes, or a stage that it does not have.
    """
    imagen = load(options.cascade)
    dataset = imagen.experiments[0].data.dataset
    exams = {
        kind: eval_set.draw_eval_set(
            dataset, split, count=options.images, seed=options.seed, size=64
        )
        for kind, split in SPLITS.items()
    }
    settings = collect_settings(options, imagen.experiments[0], leave_out=("batch_size",))
    groups: dict[str, list[int]] = {}
    verdicts: dict[str, list[bool]] = {name: [] for name in options.settings}
    before = 0
    for part in tqdm(_parts(exams, options.part), desc=NAME, unit="part"):
        for group, rows in part.groups.items():
            groups.setdefault(group, []).extend(before + row for row in rows)
        before += len(part.captions)
        for name, found in verdicts.items():
            found += _verdicts(imagen, part, name, options)
        results = compared(verdicts, {**groups, ALL: list(range(before))})
        write_results(options.out, NAME, settings, results)
    page = _page(results, options)
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def compared(
    verdicts: Mapping[str, Sequence[bool]], groups: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, dict[str, int | float]]]:
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


def plot(results: Mapping[str, Mapping[str, Mapping[str, int | float]]]) -> Figure:
    """Each setting's difference to the reference with two standard errors, by kind of caption."""
    figure = Figure(figsize=(8, 4), layout="constrained")
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


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some captions, their seed, and which of them are of which group."""

    captions: list[str]
    seed: int
    groups: dict[str, list[int]]


def _parts(exams: Mapping[str, eval_set.EvalSet], size: int) -> list[_Part]:
    """The exams in turns, so that the results of an interrupted experiment are of every kind."""
    parts = []
    for start in range(0, max(len(e.captions) for e in exams.values()), size):
        for kind, drawn in exams.items():
            some = dataclasses.replace(
                drawn,
                captions=drawn.captions[start : start + size],
                real=drawn.real[start : start + size],
            )
            groups = {f"{kind}, {OBJECTS[name]}": rows for name, rows in some.kinds().items()}
            parts.append(_Part(some.captions, start, groups))
    return parts


def _verdicts(imagen: Imagen, part: _Part, name: str, options: Options) -> list[bool]:
    """Verdicts of the oracle on the images that one setting samples."""
    seed = options.seed + part.seed
    cache = ImageCache(folder=options.workdir / NAME, seed=seed, batch_size=options.batch_size)
    changed = imagen.with_sampler(SETTINGS[name], stage=imagen.stages[0].stage.name)
    images = cache.sample(changed, part.captions, last_stage=options.last_stage)
    return [alignment.judge(*pair).all for pair in zip(images, part.captions, strict=True)]


def _page(results: Mapping[str, Mapping[str, Any]], options: Options) -> Page:
    reference = next(iter(results))
    rows = [
        {
            "base stage": name,
            "captions": group,
            "number": str(row["captions"]),
            "right, %": f"{row['share']:.1f}",
            "difference": "-" if name == reference else f"{row['difference']:+.1f}",
            "standard error": "-" if name == reference else f"{row['error']:.1f}",
        }
        for name, groups in results.items()
        for group, row in groups.items()
    ]
    return Page(
        title="Few steps",
        text=f"The cascade `{options.cascade}` sampled {options.images} new captions seen in "
        "training and as many of held-out combinations with every setting of its base stage, from "
        f"the same noise; other stages as configured. Judged: images of {options.last_stage}, "
        f"right where all that the caption states is. Differences, in points, are to {reference}, "
        "caption by caption.",
        rows=rows,
        figure=plot(results),
    )


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
