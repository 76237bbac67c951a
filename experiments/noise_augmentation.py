"""Noise conditioning augmentation: super-resolution trained with and without (section 2.4, A.11).

The claim: a super-resolution model that was trained on noised low-resolution images, and told how
noised they are, copes with the flaws of the base model's images.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from lib import command, image_table, runs, scoring
from lib.image_cache import ImageCache, LowPixels
from lib.results import Page, shell_command, write_page, write_results
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.data.images.transforms import area_downsample
from imagen_jax.diffusion import noise_conditioning
from imagen_jax.image import to_float, to_uint8
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.load import load
from imagen_jax.types import Pixels

NAME = "noise_augmentation"
SAMPLED, REAL = "sampled", "real"  # input of the super-resolution stage
Sized = Mapping[str, np.ndarray]  # images by name, uint8 (p, side, side, 3), of several sizes
Row = Mapping[str, Any]  # training, input, level and what scoring.Judge.measure gives


@dataclasses.dataclass(frozen=True)
class Options:
    """Length of the two trainings, and how they are judged."""

    configs: str = "shapes"
    """Cascade of configs, packaged or a folder, whose first super-resolution stage is trained."""
    cascade: str = "shapes"
    """An embedded cascade's name, or a folder of runs, whose base stage samples the input."""
    max_level: Annotated[float, config.Range(above=0, high=1)] = 0.5
    """Training with augmentation draws aug_level from 0 to this."""
    levels: tuple[config.Share, ...] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    """Values of aug_level to sample with."""
    steps: config.Count | None = None
    """Training steps of each run. Default: the config's."""
    batch: config.Count | None = None
    """Training examples a step. Default: the config's."""
    images: config.Count = 256
    """Captions, half of them with one object, each sampled with every level and training."""
    others: config.Count = 1000
    """Real images that Fréchet distances are measured from."""
    shown: config.Count = 8
    """Captions in the sheet of images."""
    shown_levels: tuple[config.Share, ...] = (0.0, 0.1, 0.3)
    """Levels in the sheet of images."""
    out: Path = Path("results")
    """Folder for plot, table, numbers and sheet."""
    workdir: Path = Path("runs/experiments")
    """Folder for the runs and the sampled images; what is there is not made again, so delete it
    after changing code."""
    data_dir: Path = Path("data")
    """Folder of datasets and encodings; they are made where they are missing."""
    seed: config.Seed = 1
    """Seed of the captions and of the noise."""
    batch_size: config.Count = 64
    """Images sampled at once."""

    def __post_init__(self) -> None:
        config.check_options(self)
        missing = sorted(set(self.shown_levels) - set(self.levels))
        config.require(not missing, f"shown_levels={missing} are not among {self.levels=}")
        config.require(self.shown <= self.images, f"shown={self.shown} exceeds {self.images=}")

    def trainings(self) -> dict[str, float]:
        """The two runs, and up to which aug_level each is trained."""
        return {"with augmentation": self.max_level, "without": 0.0}


def run(options: Options) -> None:
    """Train twice, sample, judge, plot; writes noise_augmentation.png, _images.png, .md and .json.

    Errors: ValueError when no stage of the cascade samples the input's size.
    """
    base = load(options.cascade)
    experiment = variant(options, max_level=options.max_level)
    stage = experiment.stage
    last_stage = _stage_of_size(base, stage.low_size)
    judge = scoring.make_judge(
        experiment.data.dataset,
        size=stage.size,
        count=options.images,
        others=options.others,
        seed=options.seed,
    )
    captions, real = judge.exam.captions, judge.exam.real
    trained = {name: _trained(options, level) for name, level in options.trainings().items()}
    cache = ImageCache(
        folder=options.workdir / NAME, seed=options.seed, batch_size=options.batch_size
    )
    inputs = {
        SAMPLED: cache.sample(base, captions, last_stage=last_stage),
        REAL: area_downsample(real, stage.factor),
    }
    rows, sheets = _swept(trained, inputs, judge, cache=cache, options=options)
    results = {
        "real": judge.measure(real),
        "bilinear_error": _error(_bilinear(inputs[REAL], stage.size), real),
        "rows": rows,
    }
    _save_sheet({**inputs, **sheets}, judge, options)
    write_results(options.out, NAME, _settings(experiment, options), results)
    page = _page(results, experiment=experiment, options=options)
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def variant(options: Options, *, max_level: float) -> config.Experiment:
    """The config's first super-resolution stage, trained with aug_level from 0 to `max_level`.

    With 0 every example is noised to the schedule's cleanest level (sigma 5e-5), and the network
    never sees another aug_logsnr than that level's.
    Errors: ValueError for a config without super-resolution.
    """
    found = [e for e in config.load(options.configs) if e.stage.is_super_resolution]
    if not found:
        raise ValueError(f"config {options.configs!r} has no super-resolution stage")
    experiment = found[0]
    train = experiment.train
    noise = experiment.stage.noise_conditioning
    noise = dataclasses.replace(
        noise, max_level=max_level, sample_level=min(noise.sample_level, max_level)
    )
    return dataclasses.replace(
        experiment,
        stage=dataclasses.replace(experiment.stage, noise_conditioning=noise),
        train=dataclasses.replace(
            train,
            steps=train.steps if options.steps is None else options.steps,
            batch_size=train.batch_size if options.batch is None else options.batch,
        ),
    )


def plot(results: Mapping[str, Any]) -> Figure:
    """Alignment, details, distance and error against the level; a curve a training and input."""
    rows, real, upsampled = results["rows"], results["real"], results["bilinear_error"]
    detail = "fill" if "fill" in real else "shape"
    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = {
        "all": ("captions right in all attributes, %", 100.0, real["all"], "real images"),
        detail: (f"captions right in {detail}, %", 100.0, real[detail], "real images"),
        "frechet": ("Fréchet distance", 1.0, real["frechet"], "real images"),
        "error": ("mean error to the real image, of 255", 1.0, upsampled, "bilinear"),
    }
    for axis, (name, (what, scale, level, label)) in zip(
        figure.subplots(2, 2).flat, panels.items(), strict=True
    ):
        _curves(axis, [row for row in rows if name in row], name, scale=scale)
        axis.axhline(scale * level, color="gray", ls="--", label=label)
        axis.set(xlabel="aug_level at sampling", ylabel=what)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return figure


def _curves(axis: Axes, rows: Sequence[Row], name: str, *, scale: float) -> None:
    """Levels are labels at equal distances: most of them lie close to 0."""
    styles = {SAMPLED: "o-", REAL: "s:"}
    colours = dict(zip(dict.fromkeys(row["training"] for row in rows), ("C0", "C1"), strict=True))
    for (training_name, colour), (fed, style) in itertools.product(colours.items(), styles.items()):
        curve = [r for r in rows if (r["training"], r["input"]) == (training_name, fed)]
        if curve:
            points = [f"{row['level']:g}" for row in curve], [scale * row[name] for row in curve]
            axis.plot(*points, style, ms=4, color=colour, label=f"{training_name}, {fed} input")


def _stage_of_size(base: Imagen, size: int | None) -> str:
    sizes = {painter.stage.size: painter.stage.name for painter in base.stages}
    if size not in sizes:
        raise ValueError(f"no stage of the cascade samples {size}-px images; it has {sizes}")
    return sizes[size]


def _trained(options: Options, max_level: float) -> Imagen:
    experiment = variant(options, max_level=max_level)
    train = experiment.train
    # The folder's name tells apart runs of which one would pass for another that is done.
    run_name = f"level_{max_level:g}_{train.steps}x{train.batch_size}"
    workdir = options.workdir / NAME / run_name
    runs.train(experiment, workdir, data_dir=options.data_dir)
    return load(workdir)


def _swept(
    trained: Mapping[str, Imagen],
    inputs: Sized,
    judge: scoring.Judge,
    *,
    cache: ImageCache,
    options: Options,
) -> tuple[list[Row], Sized]:
    """The scores of every training, input and level, and the images for the sheet."""
    captions, real = judge.exam.captions, judge.exam.real
    rows, sheets = [], {}
    settings = list(itertools.product(inputs, trained, options.levels))
    for fed, name, level in tqdm(settings, NAME, unit=" settings", dynamic_ncols=True):
        changed = _at(trained[name], level)
        stage = changed.stages[0].stage.name
        images = cache.sample(changed, captions, last_stage=stage, low_res=inputs[fed])
        row = {"training": name, "input": fed, "level": level, **judge.measure(images)}
        if fed == REAL:
            row["error"] = _error(images, real)
        rows.append(row)
        if level in options.shown_levels:
            sheets[f"{fed} input, {name}, aug_level {level:g}"] = images
    return rows, sheets


def _at(run: Imagen, level: float) -> Imagen:
    """Sampling at any level, those that the run was never trained on included."""
    (painter,) = run.stages
    noise = config.NoiseConditioning(
        schedule=painter.stage.noise_conditioning.schedule, sample_level=level
    )
    stage = dataclasses.replace(painter.stage, noise_conditioning=noise)
    return dataclasses.replace(run, stages=(dataclasses.replace(painter, stage=stage),))


def _save_sheet(rows: Sized, judge: scoring.Judge, options: Options) -> None:
    shown = judge.shown(options.shown)
    named = {f"the {n} input" if n in (SAMPLED, REAL) else n: p[shown] for n, p in rows.items()}
    named["real"] = judge.exam.real[shown]
    options.out.mkdir(parents=True, exist_ok=True)
    image_table.save_table(
        options.out / f"{NAME}_images.png", named, judge.exam.captions[shown], side=96
    )


def _bilinear(low: LowPixels, side: int) -> Pixels:
    large = noise_conditioning.upsample(to_float(low), factor=side // low.shape[1])
    return np.asarray(to_uint8(large))


def _error(images: Pixels, real: Pixels) -> float:
    return float(np.abs(images.astype(np.float64) - real).mean())


def _settings(experiment: config.Experiment, options: Options) -> dict[str, Any]:
    return {
        "cascade": options.cascade,
        "configs": options.configs,
        "max_level": options.max_level,
        "steps": experiment.train.steps,
        "batch": experiment.train.batch_size,
        "images": options.images,
        "seed": options.seed,
    }


def _page(results: Mapping[str, Any], *, experiment: config.Experiment, options: Options) -> Page:
    table = [
        {
            "training": row["training"],
            "input": row["input"],
            "aug_level": f"{row['level']:g}",
            **scoring.quality_cells(row),
            "error": f"{row['error']:.2f}" if "error" in row else "-",
        }
        for row in results["rows"]
    ]
    real = {"training": "real images", "input": "-", "aug_level": "-", "error": "-"}
    stage, train = experiment.stage, experiment.train
    return Page(
        title="Noise conditioning augmentation",
        text=f"Stage {stage.name} ({stage.low_size} to {stage.size} px) of configs "
        f"`{options.configs}` was trained twice, {train.steps} steps of {train.batch_size}: with "
        f"aug_level from 0 to {options.max_level:g}, and without augmentation, which leaves the "
        f"network any level but 0 unknown. Each enlarged {options.images} images that "
        f"`{options.cascade}` sampled from new captions, and the real images of these captions, "
        f"with every aug_level and the same noise. {scoring.NOTE} Error: mean distance of a "
        "channel value to the real image's, of 255; bilinear upsampling has "
        f"{results['bilinear_error']:.2f}.\n\n![images]({NAME}_images.png)",
        rows=[*table, {**real, **scoring.quality_cells(results["real"])}],
        figure=plot(results),
    )


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
