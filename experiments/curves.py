"""Metric against metric over guidance weights, thresholds, noise levels and runs (4, fig. 4, A.8).

The paper's curves: a point is one setting of the sampler, a curve joins the guidance weights of one
run, threshold and `aug_level`. A point's interval of 95 % is the bootstrap over seeds. Metrics of
alignment are the oracle of shapes, or CLIP score; metrics of fidelity FID, CMMD or the Fréchet
distance on classical descriptors. Without weights CMMD is of a CLIP with random ones.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lib import command, curve_metrics
from lib.image_cache import ImageCache
from lib.results import Page, shell_command, write_page, write_results
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.load import load

NAME = "curves"
DRAWS = 2000  # of the bootstrap
Point = Mapping[str, Any]  # cascade, threshold, aug_level, weight; values by metric and seed


@dataclasses.dataclass(frozen=True)
class Options:
    """Runs, settings of their samplers, and metrics."""

    cascades: tuple[str, ...] = ("shapes",)
    """Runs or bundles to compare: folders, or names of embedded cascades."""
    weights: tuple[config.Finite, ...] = (1.0, 2.0, 4.0, 8.0)
    """Guidance weights of the base stage."""
    thresholds: tuple[config.Threshold, ...] = ("none", "dynamic")
    """Thresholds of the base stage."""
    aug_levels: tuple[config.Share, ...] = ()
    """Noise levels of the super-resolution stages; none: the cascade's own."""
    x: str = "shapes"
    """Metric of alignment: shapes or clip."""
    y: tuple[str, ...] = ("cmmd", "frechet")
    """Metrics of fidelity: cmmd, fid or frechet."""
    prompts: Path | None = None
    """File of prompts, as `imagen eval --prompts` reads them. Default: captions of shapes."""
    reference: str = ""
    """Real images, as `imagen score --reference` takes them. Default: real images of shapes."""
    inception: Path | None = None
    """FID's weights."""
    clip: Path | None = None
    """Folder of a CLIP model for the CLIP score."""
    cmmd_clip: Path | None = None
    """Folder of CMMD's CLIP model. Default: a small one with random weights."""
    last_stage: str | None = None
    """Judge the images of this stage. Default: the last one."""
    images: config.Count = 64
    """Prompts, each sampled in every setting and by every seed."""
    others: config.Count = 500
    """Real images of shapes that distances are measured from, without a reference."""
    seeds: tuple[config.Seed, ...] = (1, 2, 3)
    """Seeds of the noise."""
    out: Path = Path("results")
    """Folder for plot, table and numbers."""
    workdir: Path = Path("runs/experiments")
    """Folder for sampled images, which are not sampled again; delete it after changing code."""
    batch_size: config.Count = 64
    """Images sampled at once."""

    def __post_init__(self) -> None:
        config.check_options(self)
        config.require(bool(self.seeds), "seeds: give one or more")
        config.require(bool(self.weights), "weights: give one or more")


def run(options: Options) -> None:
    """Sample, measure, plot; writes curves.png, curves.md and curves.json.

    Errors: ValueError for a cascade, a stage or a metric that is not there; OSError.
    """
    cascades = {name: load(name) for name in options.cascades}
    metrics = curve_metrics.prepare(options, cascades)
    points = []
    for setting, sampled in _sampled(cascades, metrics.prompts, options):
        values = [metrics.measure(images) for images in sampled]
        points.append({**setting, "values": _by_metric(values)})
        settings = {name: str(value) for name, value in vars(options).items()}
        write_results(options.out, NAME, settings, {"points": points, "real": metrics.real})
    results = {"points": points, "real": metrics.real}
    write_page(options.out, NAME, _page(results, options), made_by=shell_command(NAME, options))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The percentile bootstrap's interval of 95 % for a mean over seeds."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (DRAWS, len(values)))
    low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def plot(results: Mapping[str, Any], *, x: str, ys: Sequence[str]) -> Figure:
    """A panel for each metric of fidelity, a curve for each run, threshold and noise level."""
    figure = Figure(figsize=(5.5 * len(ys), 4.2), layout="constrained")
    for axis, y in zip(figure.subplots(1, len(ys), squeeze=False)[0], ys, strict=True):
        for label, points in _curves(results["points"]).items():
            _draw(axis, label, points, x, y)
        if {x, y} <= set(results["real"]):
            real = results["real"]
            axis.plot([real[x]], [real[y]], "k*", ms=9, label="real images")
        axis.set(xlabel=curve_metrics.TITLES[x], ylabel=curve_metrics.TITLES[y])
        axis.set_title("guidance weights beside the points", fontsize=9)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return figure


def _sampled(
    cascades: Mapping[str, Imagen], prompts: Sequence[str], options: Options
) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    """Each setting, and its images by seed; weights share a program, thresholds do not."""
    levels = options.aug_levels or (None,)
    every = itertools.product(cascades, options.thresholds, levels, options.weights)
    for name, threshold, level, weight in tqdm(list(every), NAME, unit=" settings"):
        imagen = cascades[name]
        base = imagen.stages[0].stage.name
        changes: list[Any] = [(base, {"threshold": threshold, "guidance_weight": weight})]
        if level is not None:
            large = [s.stage.name for s in imagen.stages if s.stage.is_super_resolution]
            changes += [(stage, {"aug_level": level}) for stage in large]
        changed = imagen.with_samplers(changes)
        caches = [
            ImageCache(folder=options.workdir / NAME, seed=seed, batch_size=options.batch_size)
            for seed in options.seeds
        ]
        stage = options.last_stage or imagen.stages[-1].stage.name
        images = [cache.sample(changed, prompts, last_stage=stage) for cache in caches]
        yield (
            {"cascade": name, "threshold": threshold, "aug_level": level, "weight": weight},
            images,
        )


def _by_metric(values: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [one[name] for one in values] for name in values[0]}


def _curves(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points by the name of their curve, which says what differs between curves."""
    found: dict[str, list[Point]] = {}
    for point in points:
        level = point["aug_level"]
        parts = [point["cascade"], point["threshold"]]
        parts += [] if level is None else [f"aug_level {level:g}"]
        found.setdefault(", ".join(parts), []).append(point)
    return found


def _draw(axis: Axes, label: str, points: Sequence[Point], x: str, y: str) -> None:
    means = {name: [float(np.mean(p["values"][name])) for p in points] for name in (x, y)}
    errors = {}
    for name in (x, y):
        ends = [interval(p["values"][name]) for p in points]
        errors[name] = [
            [mean - low for mean, (low, _) in zip(means[name], ends, strict=True)],
            [high - mean for mean, (_, high) in zip(means[name], ends, strict=True)],
        ]
    bars = {"xerr": errors[x], "yerr": errors[y], "capsize": 2}
    axis.errorbar(means[x], means[y], fmt="o-", ms=4, label=label, **bars)
    for point, place in zip(points, zip(means[x], means[y], strict=True), strict=True):
        axis.annotate(f"{point['weight']:g}", place, (3, 3), textcoords="offset points", fontsize=8)


def _page(results: Mapping[str, Any], options: Options) -> Page:
    names = (options.x, *options.y)
    rows = []
    for point in results["points"]:
        level = point["aug_level"]
        row = {"cascade": point["cascade"], "threshold": point["threshold"]}
        row["aug_level"] = "-" if level is None else f"{level:g}"
        row["weight"] = f"{point['weight']:g}"
        for name in names:
            low, high = interval(point["values"][name])
            row[name] = f"{np.mean(point['values'][name]):.4g} ({low:.4g} to {high:.4g})"
        rows.append(row)
    if set(names) <= set(results["real"]):
        dashes = dict.fromkeys(("threshold", "aug_level", "weight"), "-")
        real = {name: f"{results['real'][name]:.4g}" for name in names}
        rows.append({"cascade": "real images", **dashes, **real})
    return Page(
        title="Metric against metric",
        text=f"{options.images} prompts, {len(options.seeds)} seeds: means, with intervals of "
        f"95 % by the bootstrap over seeds. {curve_metrics.NOTE}",
        rows=rows,
        figure=plot(results, x=options.x, ys=options.y),
    )


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
