"""Guidance weight and thresholding: alignment against quality (sections 2.2, 2.3, fig. A.8).

The claim: a higher guidance weight aligns images with their captions, at the price of saturated
colours where x0 leaves [-1, 1]; static thresholding helps, dynamic thresholding helps most.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib import command, image_table, scoring
from lib.image_cache import ImageCache
from lib.results import Page, shell_command, write_page, write_results
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.load import load
from imagen_jax.types import Pixels

NAME = "guidance"
Row = Mapping[str, Any]  # threshold, weight and what scoring.Judge.measure gives
Curve = Callable[[Row], float]


@dataclasses.dataclass(frozen=True)
class Options:
    """Cascade, its guidance, and what is kept."""

    cascade: str = "shapes"
    """An embedded cascade's name, or a folder of runs."""
    weights: tuple[config.Finite, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0)
    """Guidance weights of the base stage; 1 is off."""
    thresholds: tuple[config.Threshold, ...] = ("none", "static", "dynamic")
    """Thresholds of the base stage."""
    last_stage: str | None = None
    """Judge the images of this stage. Default: the base stage itself."""
    images: config.Count = 256
    """Captions, half of them with one object, each sampled with every weight and threshold."""
    others: config.Count = 1000
    """Real images that Fréchet distances are measured from."""
    shown: config.Count = 8
    """Captions in the sheet of images."""
    shown_weights: tuple[config.Finite, ...] = (1.0, 3.0, 7.0, 15.0)
    """Weights in the sheet of images."""
    out: Path = Path("results")
    """Folder for plot, table, numbers and sheet."""
    workdir: Path = Path("runs/experiments")
    """Folder for sampled images, which are not sampled again; delete it after changing code."""
    seed: config.Seed = 1
    """Seed of the captions and of the noise."""
    batch_size: config.Count = 64
    """Images sampled at once."""

    def __post_init__(self) -> None:
        config.check_options(self)
        missing = sorted(set(self.shown_weights) - set(self.weights))
        config.require(not missing, f"shown_weights={missing} are not among {self.weights=}")
        config.require(self.shown <= self.images, f"shown={self.shown} exceeds {self.images=}")


def run(options: Options) -> None:
    """Sample, judge, plot; writes guidance.png, guidance_images.png, guidance.md and .json.

    Errors: ValueError when the stage's images are too small to be judged or it does not exist.
    """
    imagen = load(options.cascade)
    stage = _judged(imagen, options.last_stage)
    judge = scoring.make_judge(
        imagen.experiments[0].data.dataset,
        size=stage.size,
        count=options.images,
        others=options.others,
        seed=options.seed,
    )
    captions, real = judge.exam.captions, judge.exam.real
    shown = judge.shown(options.shown)
    rows, sheets = [], {}
    for threshold, weight, images in _sampled(imagen, captions, stage.name, options):
        rows.append({"threshold": threshold, "weight": weight, **judge.measure(images)})
        if weight in options.shown_weights:
            sheets[f"{threshold}, w = {weight:g}"] = images[shown]
    options.out.mkdir(parents=True, exist_ok=True)
    sheets["real"] = real[shown]
    image_table.save_table(options.out / f"{NAME}_images.png", sheets, captions[shown], side=96)
    results = {"real": judge.measure(real), "rows": rows}
    settings = {"cascade": options.cascade, "stage": stage.name, "images": options.images}
    write_results(options.out, NAME, {**settings, "seed": options.seed}, results)
    page = _page(results, stage=stage, options=options)
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def plot(results: Mapping[str, Any]) -> Figure:
    """Alignment against distance, saturation and alignment against weight; a curve a threshold."""
    rows, real = results["rows"], results["real"]
    figure = Figure(figsize=(13, 4), layout="constrained")
    pareto, saturation, alignment = figure.subplots(1, 3)
    _curves(pareto, rows, _share("all"), lambda row: row["frechet"])
    for row in rows:
        place = (100 * row["all"], row["frechet"])
        pareto.annotate(f"{row['weight']:g}", place, (3, 3), textcoords="offset points", fontsize=7)
    pareto.axhline(real["frechet"], color="gray", ls="--", label="real images")
    pareto.set(
        xlabel="captions right in all attributes, %", ylabel="Fréchet distance", yscale="log"
    )
    pareto.set_title("guidance weights beside the points", fontsize=9)
    for axis, name, what in (
        (saturation, "saturated", "channel values at 0 or 255, %"),
        (alignment, "all", "captions right in all attributes, %"),
    ):
        _curves(axis, rows, lambda row: row["weight"], _share(name))
        axis.axhline(100 * real[name], color="gray", ls="--", label="real images")
        axis.set(xlabel="guidance weight", ylabel=what)
    for axis in (pareto, saturation, alignment):
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return figure


def _judged(imagen: Imagen, last_stage: str | None) -> config.Stage:
    stages = {painter.stage.name: painter.stage for painter in imagen.stages}
    name = next(iter(stages)) if last_stage is None else last_stage
    if name not in stages:
        raise ValueError(f"no stage {name!r} in this cascade; it has {list(stages)}")
    return stages[name]


def _sampled(
    imagen: Imagen, captions: list[str], stage: str, options: Options
) -> Iterator[tuple[str, float, Pixels]]:
    """Images of each threshold and weight, with the same noise.

    Thresholds are the outer loop: each is a program of its own, and weights share one (but 1).
    """
    base = imagen.stages[0].stage.name
    cache = ImageCache(
        folder=options.workdir / NAME, seed=options.seed, batch_size=options.batch_size
    )
    settings = list(itertools.product(options.thresholds, options.weights))
    for threshold, weight in tqdm(settings, NAME, unit=" settings", dynamic_ncols=True):
        changes = {"threshold": threshold, "guidance_weight": weight}
        changed = imagen.with_sampler(changes, stage=base)
        yield threshold, weight, cache.sample(changed, captions, last_stage=stage)


def _page(results: Mapping[str, Any], *, stage: config.Stage, options: Options) -> Page:
    table = [
        {
            "threshold": row["threshold"],
            "weight": f"{row['weight']:g}",
            **scoring.quality_cells(row),
        }
        for row in results["rows"]
    ]
    real = {"threshold": "real images", "weight": "-", **scoring.quality_cells(results["real"])}
    return Page(
        title="Guidance weight and thresholding",
        text=f"Stage {stage.name} ({stage.size} px) of `{options.cascade}` sampled "
        f"{options.images} new captions with every guidance weight and threshold of the base "
        f"stage, with the same noise. {scoring.NOTE}\n\n![images]({NAME}_images.png)",
        rows=[*table, real],
        figure=plot(results),
    )


def _share(name: str) -> Curve:
    return lambda row: 100 * row[name]


def _curves(axis: Axes, rows: Sequence[Row], x: Curve, y: Curve) -> None:
    for threshold in dict.fromkeys(row["threshold"] for row in rows):
        points = [(x(row), y(row)) for row in rows if row["threshold"] == threshold]
        axis.plot(*zip(*points, strict=True), "o-", ms=4, label=threshold)


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
