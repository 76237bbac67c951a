"""Students of few steps beside their teacher (arXiv:2406.04103, 2210.03142, 2202.00512).

The claim: a student that calls its network a few times samples what its teacher samples with many.
Every setting samples the same captions from the same noise, and its verdicts are compared caption
by caption; the Fréchet distance and sharpness stand beside the teacher's over other noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from lib import command, paired_verdicts
from lib.cascade_options import CascadeOptions
from lib.image_cache import ImageCache
from lib.image_table import save_table
from lib.paired_verdicts import ALL, Compared, Part
from lib.results import Page, collect_settings, shell_command, write_page, write_results
from matplotlib.figure import Figure
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.evaluate import eval_set, frechet
from imagen_jax.evaluate.sharpness import sharpness
from imagen_jax.imagen import Imagen
from imagen_jax.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from imagen_jax.pretrained.load import load
from imagen_jax.types import Pixels

NAME = "distillation"
TEACHER = "teacher"
SHOWN = 10  # captions of the table of images, the first of each kind
CELL = 96  # pixels of an image in it


@dataclasses.dataclass(frozen=True)
class Options(CascadeOptions):
    """Teacher, which is the cascade, and students."""

    students: tuple[str, ...] = ()
    """Runs, exported stages or cascades, whose stages take the places of the teacher's."""
    steps: Annotated[tuple[int, ...], config.Range(low=1, high=10**5)] = (8, 4, 2, 1)
    """Steps of the first stage, for the teacher and for students of guidance alone."""
    seeds: config.Count = 3
    """Times that the teacher samples, each from other noise, for its spread."""
    student_seeds: config.Count = 1
    """Times that each student samples, likewise."""
    references: config.Count = 2000
    """Real images that the Fréchet distance is measured from; an even number."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A cascade, what it is named in tables, and the seed that is added to the captions'."""

    name: str
    method: str
    imagen: Imagen
    noise: int = 0


@dataclasses.dataclass
class Measured:
    """What was measured of a setting's images so far."""

    verdicts: list[bool] = dataclasses.field(default_factory=list)
    described: list[np.ndarray] = dataclasses.field(default_factory=list)
    sharpness: list[float] = dataclasses.field(default_factory=list)

    def add(self, images: Pixels, captions: Sequence[str]) -> None:
        """Judge some images and describe them."""
        self.verdicts += paired_verdicts.judge(images, captions).tolist()
        self.described.append(frechet.describe_distribution(images))
        self.sharpness.append(sharpness(images))

    def quality(self, real: Gaussian, crisp: float) -> dict[str, float]:
        """Return the Fréchet distance to real images, and the share of their sharpness."""
        found = fit_gaussian(np.concatenate(self.described))
        return {
            "frechet": frechet_distance(found, real),
            "sharpness": float(np.mean(self.sharpness)) / crisp,
        }


def run(options: Options) -> None:
    """Sample, judge, compare; writes distillation.png, .md, .json and _images.png.

    Errors: ValueError for a cascade that is not of shapes, a stage that it does not have, or
    students that can't be told apart.
    """
    teacher = load(options.cascade)
    chosen = settings(teacher, options)
    dataset = teacher.experiments[0].data.dataset
    parts = paired_verdicts.draw_parts(
        dataset, images=options.images, size=options.part, seed=options.seed
    )
    real, crisp = _reference(dataset, teacher, options)
    kept = collect_settings(options, teacher.experiments[0], leave_out=("batch_size",))
    measured = {setting.name: Measured() for setting in chosen}
    results: dict[str, Any] = {}
    for done, part in enumerate(tqdm(parts, desc=NAME, unit="part"), 1):
        for setting in chosen:
            measured[setting.name].add(_sample(setting, part, options), part.captions)
        verdicts = {name: found.verdicts for name, found in measured.items()}
        compared = paired_verdicts.compare(verdicts, paired_verdicts.join_groups(parts[:done]))
        results = {
            s.name: {
                "method": s.method,
                "calls": count_calls(s.imagen, options.last_stage),
                **measured[s.name].quality(real, crisp),
                "right": compared[s.name],
            }
            for s in chosen
        }
        write_results(options.out, NAME, kept, results)
    _save_images(chosen, parts, options)
    write_page(options.out, NAME, _page(results, options), made_by=shell_command(NAME, options))


def settings(teacher: Imagen, options: Options) -> list[Setting]:
    """The teacher as it is, with other noise and with fewer steps, then the students.

    Errors: ValueError for students that have one name, or whose stages the teacher lacks.
    """
    found = _with_other_noise(Setting(TEACHER, TEACHER, teacher), options.seeds)
    found += _at_steps(found[0], options.steps)
    for address in options.students:
        setting = _student(teacher, address)
        first = setting.imagen.stages[0].stage.distillation
        fixed = first is None or first.method != "guidance"
        found += _with_other_noise(setting, options.student_seeds)
        found += [] if fixed else _at_steps(setting, options.steps)
    names = [setting.name for setting in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"students: {config.join_values(twice)} twice: give each folder another name"
        )
    return found


def _with_other_noise(setting: Setting, seeds: int) -> list[Setting]:
    others = (
        dataclasses.replace(setting, name=f"{setting.name}, noise {n}", method="", noise=n)
        for n in range(2, seeds + 1)
    )
    return [setting, *others]


def _at_steps(setting: Setting, steps: Sequence[int]) -> list[Setting]:
    first = setting.imagen.stages[0].stage
    return [
        Setting(
            f"{setting.name.split(', ')[0]}, {n} step{'s' * (n > 1)}",
            setting.method,
            setting.imagen.with_sampler({"steps": n}, stage=first.name),
        )
        for n in steps
        if n < first.sampler.steps
    ]


def _student(teacher: Imagen, address: str) -> Setting:
    """The teacher with a student's stages in the places of its own."""
    student = load(address)
    by_name = {trained.stage.name: trained for trained in student.stages}
    names = [trained.stage.name for trained in teacher.stages]
    if unknown := [name for name in by_name if name not in names]:
        raise ValueError(
            f"student {address}: the teacher has no stage {unknown[0]!r}; it has {names}"
        )
    stages = tuple(by_name.get(name, own) for name, own in zip(names, teacher.stages, strict=True))
    distilled = student.stages[0].stage.distillation
    if len(student.stages) > 1 or distilled is None:
        method = name = Path(address).name
    else:
        method, steps = distilled.method, student.stages[0].stage.sampler.steps
        name = f"{method}, {steps} step{'s' * (steps > 1)}"
    return Setting(name, method, dataclasses.replace(teacher, stages=stages))


def count_calls(imagen: Imagen, last_stage: str) -> int:
    """Count how often networks see an image, up to a stage."""
    stages = [trained.stage for trained in imagen.select_stages(None, last_stage)]
    return sum(
        stage.sampler.steps
        * (2 if stage.is_guided else 1)
        * (2 if stage.sampler.kind == "edm_heun" else 1)
        for stage in stages
    )


def _reference(dataset: str, teacher: Imagen, options: Options) -> tuple[Gaussian, float]:
    """The Gaussian of real images at the last stage's size, and their sharpness."""
    size = teacher.select_stages(None, options.last_stage)[-1].stage.size
    real = eval_set.balanced_eval_set(
        dataset, count=options.references, seed=options.seed + 1, size=size
    ).real
    return fit_gaussian(frechet.describe_distribution(real)), sharpness(real)


def _sample(setting: Setting, part: Part, options: Options) -> Pixels:
    seed = options.seed + part.seed + 1_000_000 * setting.noise
    cache = ImageCache(folder=options.workdir / NAME, seed=seed, batch_size=options.batch_size)
    return cache.sample(setting.imagen, part.captions, last_stage=options.last_stage)


def _save_images(chosen: Sequence[Setting], parts: Sequence[Part], options: Options) -> None:
    """The first captions of each group, a row for each setting, from the same noise."""
    part = parts[0]
    each = max(1, SHOWN // len(part.groups))
    columns = [row for rows in part.groups.values() for row in rows[:each]]
    shown = [setting for setting in chosen if not setting.noise]
    rows = {setting.name: _sample(setting, part, options)[columns] for setting in shown}
    captions = [part.captions[column] for column in columns]
    save_table(options.out / f"{NAME}_images.png", rows, captions, side=CELL)


def plot(results: dict[str, Any]) -> Figure:
    """Percent right and the Fréchet distance over calls of the networks, a line for each method."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    methods = dict.fromkeys(row["method"] for row in results.values() if row["method"])
    values = {
        "right, % of all captions": lambda row: row["right"][ALL]["share"],
        "Fréchet distance": lambda row: row["frechet"],
    }
    for axis, (label, value) in zip(figure.subplots(1, 2), values.items(), strict=True):
        for method in methods:
            rows = [row for row in results.values() if row["method"] == method]
            rows.sort(key=lambda row: row["calls"])
            axis.plot([r["calls"] for r in rows], [value(r) for r in rows], "o-", label=method)
        axis.set(xlabel="calls of a network an image", ylabel=label, xscale="log")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return figure


def _page(results: dict[str, Any], options: Options) -> Page:
    compared: Compared = {name: row["right"] for name, row in results.items()}
    rows = [
        {
            "setting": name,
            "calls": str(row["calls"]),
            **{
                group: f"{found['share']:.1f}"
                + (
                    ""
                    if name == TEACHER
                    else f" ({found['difference']:+.1f} +- {found['error']:.1f})"
                )
                for group, found in compared[name].items()
            },
            "Fréchet": f"{row['frechet']:.3f}",
            "sharpness": f"{row['sharpness']:.3f}",
        }
        for name, row in results.items()
    ]
    return Page(
        title="Students of few steps",
        text=f"{options.images} new captions of combinations that training showed and as many of "
        f"held-out ones, sampled to {options.last_stage} by the teacher `{options.cascade}` and "
        "its students from the same noise. Calls: of a network, for an image. Right: percent of "
        "images that show all that their captions state, and in brackets the difference to the "
        "teacher caption by caption, in points, with its standard error. Fréchet: distance to "
        f"{options.references} real images. Sharpness: share of the real images'. "
        f"Images: [{NAME}_images.png]({NAME}_images.png).",
        rows=rows,
        figure=plot(results),
    )


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
