"""The protocol of evaluation: which images are sampled, and what they are compared with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax import config
from imagen_jax.data.images.transforms import area_downsample
from imagen_jax.diffusion import noise_conditioning
from imagen_jax.evaluate import alignment, eval_set, report
from imagen_jax.evaluate.detector import SMALLEST
from imagen_jax.evaluate.eval_set import EvalSet
from imagen_jax.evaluate.report import Report, Row, Scores, Section
from imagen_jax.evaluate.settings import EvaluationSettings
from imagen_jax.evaluate.sharpness import sharpness
from imagen_jax.image import to_float, to_uint8
from imagen_jax.imagen import Imagen
from imagen_jax.io import image_grid, log_files
from imagen_jax.sample.progress import SamplingCallbacks
from imagen_jax.sample.request import Request
from imagen_jax.types import Pixels

SPLITS = {"seen": "validation", "held out": "held_out"}
DEFAULTS = EvaluationSettings()
OBJECTS = {"one": "one object", "two": "two objects"}
LEGEND = (
    "Seen: new captions, of combinations of shape and colour that training showed. "
    "Held out: captions of combinations that training never showed. "
    "Ceiling: scores of the same judge for real images of the same captions; no cascade is "
    "expected above it."
)


def evaluate(
    imagen: Imagen,
    settings: EvaluationSettings = DEFAULTS,
    *,
    title: str = "Evaluation",
    runs: Path | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Report:
    """Sample and judge a cascade of shapes: seen, held out, super-resolution alone, guidance.

    `runs` is the folder of the cascade's runs, whose losses are plotted; `progress(stage, done)`
    is called after each batch.
    Errors: ValueError for a cascade that is not of shapes, or whose images are all too small.
    """
    config.check_fields(settings, "evaluation")
    sets = draw_sets(imagen, settings)
    run = _Evaluation(imagen, settings, SamplingCallbacks(on_batch=progress))
    sections = [
        *run.judge_samples(sets),
        *run.compare_with_bilinear(sets["seen"]),
        *run.sweep_guidance(sets["seen"]),
        *loss_sections(runs),
    ]
    return Report(title=title, sections=tuple(sections))


def check_cascade(imagen: Imagen) -> None:
    """Refuse a cascade that cannot be evaluated. Errors: ValueError as `evaluate`."""
    dataset = imagen.experiments[0].data.dataset
    if not dataset.startswith("shapes/"):
        raise ValueError(
            f"the cascade was trained on {dataset}; the alignment oracle judges shapes only"
        )
    judged_stages(imagen)


def count_images(imagen: Imagen, settings: EvaluationSettings) -> int:
    """Count the images that `evaluate` samples, those of each stage apart."""
    stages = [trained.stage for trained in imagen.stages]
    both = len(SPLITS) * len(stages) * settings.images
    alone = settings.images * sum(stage.low_size is not None for stage in stages)
    swept = stages.index(judged_stages(imagen)[0]) + 1
    return both + alone + len(settings.sweep) * swept * min(settings.sweep_images, settings.images)


def draw_sets(imagen: Imagen, settings: EvaluationSettings) -> dict[str, EvalSet]:
    """Draw the captions and real images of both kinds, at 256 px or the last stage's size.

    Errors: ValueError as `evaluate`.
    """
    check_cascade(imagen)
    dataset = imagen.experiments[0].data.dataset
    size = max(imagen.stages[-1].stage.size, 256)
    return {
        kind: eval_set.draw_eval_set(
            dataset, split, count=settings.images, seed=settings.seed, size=size
        )
        for kind, split in SPLITS.items()
    }


def judged_stages(imagen: Imagen) -> list[config.Stage]:
    """Return the stages whose images are large enough for the oracle.

    Errors: ValueError when there is none.
    """
    stages = [p.stage for p in imagen.stages if p.stage.size >= SMALLEST]
    if not stages:
        raise ValueError(f"the alignment oracle judges images of {SMALLEST} px and more only")
    return stages


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    imagen: Imagen
    settings: EvaluationSettings
    callbacks: SamplingCallbacks

    def judge_samples(self, sets: Mapping[str, EvalSet]) -> list[Section]:
        """The grid, and the scores of every stage beside the ceiling."""
        stages = judged_stages(self.imagen)
        rows: dict[str, list[Row]] = {stage.name: [] for stage in stages}
        last: dict[str, Pixels] = {}
        for kind, drawn in sets.items():
            sampled = self._sample(self.imagen, drawn.captions)
            last[kind] = list(sampled.values())[-1]
            for stage in stages:
                rows[stage.name] += _score_kinds(kind, drawn, sampled[stage.name])
        shown = slice(0, self.settings.grid)
        grid = functools.partial(_draw_grid, last["seen"][shown], sets["seen"].captions[shown])
        tables = [
            Section(
                title=f"{name}: the cascade's images",
                rows=tuple(found),
                text="Right attributes in percent; the ceiling is the oracle on real images.",
            )
            for name, found in rows.items()
        ]
        return [Section(title="Images", text=LEGEND, image="grid.png", draw=grid), *tables]

    def compare_with_bilinear(self, drawn: EvalSet) -> list[Section]:
        """Each super-resolution stage on real low-resolution images, beside plain upsampling."""
        sections = []
        for trained in self.imagen.stages:
            stage = trained.stage
            if stage.low_size is None:
                continue
            low = drawn.images_of_side(stage.low_size)
            alone = dataclasses.replace(self.imagen, stages=(trained,))
            images = self._sample(alone, drawn.captions, request=Request(low_res=low))[stage.name]
            sections.append(_bilinear_section(stage, images, drawn))
        return sections

    def sweep_guidance(self, drawn: EvalSet) -> list[Section]:
        """The first judged stage over guidance weights of the base stage."""
        if not self.settings.sweep:
            return []
        base, judged = self.imagen.stages[0].stage.name, judged_stages(self.imagen)[0].name
        captions = drawn.captions[: self.settings.sweep_images]
        swept: dict[float, Scores] = {}
        for weight in self.settings.sweep:
            changed = self.imagen.with_sampler({"guidance_weight": weight}, stage=base)
            swept[weight] = _score(
                self._sample(changed, captions, last_stage=judged)[judged], captions
            )
        label = f"guidance weight of {base}"
        return [
            Section(
                title=f"{judged}: {label}",
                rows=tuple(Row(name=f"w = {w:g}", scores=s) for w, s in swept.items()),
                image="guidance.png",
                draw=functools.partial(report.plot_sweep, swept, label=label),
            )
        ]

    def _sample(self, imagen: Imagen, captions: Sequence[str], **options: Any) -> dict[str, Pixels]:
        return imagen.sample(
            captions,
            seed=self.settings.seed,
            batch_size=self.settings.batch_size,
            callbacks=self.callbacks,
            **options,
        )


def loss_sections(runs: Path | None) -> list[Section]:
    """Loss curves from the logs of the runs in a folder; none for an exported cascade."""
    if runs is None:
        return []
    inside = (f for f in runs.glob("*/metrics.jsonl") if not f.parent.name.startswith("."))
    losses = {
        file.parent.name: [
            (line["step"], line["loss"]) for line in log_files.read_entries(file, "step", "loss")
        ]
        for file in sorted([*inside, *runs.glob("metrics.jsonl")])
    }
    if not losses:
        return []
    draw = functools.partial(report.plot_losses, losses)
    return [Section(title="Training loss", image="losses.png", draw=draw)]


def _score_kinds(kind: str, drawn: EvalSet, images: Pixels) -> list[Row]:
    """Scores of a stage's images and of real ones, by the number of objects."""
    rows = []
    for group, chosen in drawn.kinds().items():
        captions = [drawn.captions[i] for i in chosen]
        for what, found in (
            ("sampled", images),
            ("ceiling", drawn.images_of_side(images.shape[1])),
        ):
            scores = _score(found[chosen], captions)
            rows.append(Row(name=f"{kind}, {OBJECTS[group]}: {what}", scores=scores))
    return rows


def _bilinear_section(stage: config.Stage, images: Pixels, drawn: EvalSet) -> Section:
    low, real = drawn.images_of_side(stage.low_size or stage.size), drawn.images_of_side(stage.size)
    large = noise_conditioning.upsample(to_float(low), factor=stage.factor)
    bilinear = np.asarray(to_uint8(large))
    rows = tuple(
        Row(name=name, scores=_score(found, drawn.captions))
        for name, found in (("stage", images), ("bilinear", bilinear), ("ceiling", real))
    )
    kept = np.abs(area_downsample(images, stage.factor).astype(float) - low).mean()
    errors = [np.abs(x.astype(float) - real).mean() for x in (images, bilinear)]
    crisp = [sharpness(x) / sharpness(real) for x in (images, bilinear)]
    return Section(
        title=f"{stage.name}: from real {stage.low_size}-px images",
        rows=rows,
        text=f"Mean distance of the output, downsampled, to its input: {kept:.1f} of 255. "
        f"Mean error against the real image: stage {errors[0]:.1f}, bilinear {errors[1]:.1f}. "
        f"Sharpness of edges, the real ones being 1: stage {crisp[0]:.2f}, "
        f"bilinear {crisp[1]:.2f}.",
    )


def _draw_grid(images: Pixels, captions: Sequence[str], file: Path) -> None:
    image_grid.draw_grid(list(images), captions).save(file)


def _score(images: Pixels, captions: Sequence[str]) -> Scores:
    return alignment.score(list(images), list(captions))
