"""`imagen eval CASCADE`: judge a cascade's pictures of shapes against their captions."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro

from imagen_jax import config
from imagen_jax.cli import parsing, stopping
from imagen_jax.io import log_files

if TYPE_CHECKING:
    from imagen_jax.evaluate.eval_set import EvalSet
    from imagen_jax.evaluate.report import Scores, Section
    from imagen_jax.imagen import Imagen
    from imagen_jax.sample.progress import SamplingCallbacks

USAGE = """Judge pictures by the alignment oracle: is each attribute as the caption says?

Scores stand beside their ceiling (real pictures, judged the same way) for combinations seen in
training and for held-out ones; super-resolution stages are also fed real low-resolution pictures
and compared with bilinear upsampling. Writes index.html, report.md, scores.json and the plots.
"""


OBJECTS = {"one": "one object", "two": "two objects"}
LEGEND = (
    "Seen: new captions, of combinations of shape and colour that training showed. "
    "Held out: captions of combinations that training never showed. "
    "Ceiling: what the same judge says of real images of the same captions; expect no cascade "
    "above it."
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to judge."""

    cascade: tyro.conf.Positional[str]
    """Folder of a run, or of the runs of a cascade, or of an exported one, trained on shapes; or
    the name of an embedded cascade, such as shapes."""
    out: Path = Path("evaluation")
    """Folder to write to."""
    pictures: config.Count = 64
    """Prompts of each kind, seen and held out."""
    sweep: tuple[config.Finite, ...] = (1.0, 2.0, 4.0)
    """Guidance weights of the base stage to compare; none to skip."""
    sweep_pictures: config.Count = 64
    """Prompts for each weight of the sweep."""
    grid: config.Count = 16
    """Prompts in the grid."""
    seed: config.Seed = 1
    """Of the prompts and of the noise."""
    batch_size: config.Count = 32
    """Pictures painted at once."""


def run(argv: list[str]) -> None:
    """Parse, paint, judge, write the page."""
    options = parsing.parse(Options, argv, prog="imagen eval", description=USAGE)
    import imagen_jax
    from imagen_jax.parallel import compilation_cache
    from imagen_jax.runtime import lease

    compilation_cache.use_cache()
    unfinished = options.out / stopping.UNFINISHED
    imagen = dataclasses.replace(imagen_jax.load(options.cascade), unfinished=unfinished)
    exams = _exams(imagen, options)
    with lease.hold(options.out, command="imagen eval", option="--out"):
        page = _evaluate(imagen, exams, options)
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"\nthe page is {page}")


def _evaluate(imagen: "Imagen", exams: dict[str, "EvalSet"], options: Options) -> Path:
    """Paint, judge and write the page; its place."""
    from tqdm import tqdm

    import imagen_jax
    from imagen_jax.evaluate import report

    with (
        stopping.watch_between_batches(options.out / stopping.UNFINISHED) as check,
        tqdm(desc="painting", unit="picture", dynamic_ncols=True) as bar,
    ):

        def step(stage: str, done: int) -> None:
            _advance(bar, stage, done)
            check()

        following = imagen_jax.SamplingCallbacks(progress=step)
        sections = _judged(imagen, exams, options, following)
        sections += _swept(imagen, exams["seen"], options, following)
    sections += _losses(options)
    page = report.write_report(options.out, f"Evaluation of {options.cascade}", sections)
    for section in sections:
        if section.rows:
            print(f"\n{section.title}\n{report.markdown_table(section.rows)}")
    return page


def _advance(bar, stage: str, done: int) -> None:
    bar.set_description(stage)
    bar.update(done)


def _exams(imagen: "Imagen", options: Options) -> dict[str, "EvalSet"]:
    from imagen_jax.evaluate import eval_set

    dataset = imagen.experiments[0].data.dataset
    if not dataset.startswith("shapes/"):
        raise ValueError(
            f"{options.cascade} was trained on {dataset}; the oracle judges shapes only"
        )
    size = max(imagen.painters[-1].stage.size, 256)
    return {
        kind: eval_set.draw_eval_set(
            dataset, split, count=options.pictures, seed=options.seed, size=size
        )
        for kind, split in (("seen", "validation"), ("held out", "held_out"))
    }


def _judgeable(imagen: "Imagen") -> list[config.Stage]:
    """The stages whose pictures are large enough for the oracle."""
    from imagen_jax.evaluate.detector import SMALLEST

    stages = [p.stage for p in imagen.painters if p.stage.size >= SMALLEST]
    if not stages:
        raise ValueError(f"the oracle judges pictures of {SMALLEST} px and more only")
    return stages


def _judged(
    imagen: "Imagen", exams: dict[str, "EvalSet"], options: Options, following: "SamplingCallbacks"
) -> list["Section"]:
    """Scores of every stage, with the ceiling, and the grid."""
    from imagen_jax.evaluate.report import Row, Section
    from imagen_jax.io import image_grid

    rows: dict[str, list[Row]] = {stage.name: [] for stage in _judgeable(imagen)}
    pictures: dict[str, np.ndarray] = {}
    for kind, exam in exams.items():
        painted = imagen.paint(
            exam.captions,
            seed=options.seed,
            batch_size=options.batch_size,
            following=following,
        )
        pictures[kind] = list(painted.values())[-1]
        for stage in _judgeable(imagen):
            for group, chosen in exam.kinds().items():
                captions = [exam.captions[i] for i in chosen]
                for what, found in (
                    ("painted", painted[stage.name]),
                    ("ceiling", exam.at(stage.size)),
                ):
                    scores = _score(found[chosen], captions)
                    rows[stage.name].append(
                        Row(name=f"{kind}, {OBJECTS[group]}: {what}", scores=scores)
                    )
    sections = [
        Section(
            title=f"{name}: the cascade's pictures",
            rows=tuple(found),
            text="Right attributes in percent; the ceiling is the oracle on real pictures.",
        )
        for name, found in rows.items()
    ]
    sections += _against_bilinear(imagen, exams["seen"], options, following)
    shown = slice(0, options.grid)
    sheet = image_grid.draw_grid(list(pictures["seen"][shown]), exams["seen"].captions[shown])
    sheet.save(options.out / "grid.png")
    return [Section(title="Pictures", text=LEGEND, picture="grid.png"), *sections]


def _against_bilinear(
    imagen: "Imagen", exam: "EvalSet", options: Options, following: "SamplingCallbacks"
) -> list["Section"]:
    """Each super-resolution stage on real low-resolution pictures, beside plain upsampling."""
    import imagen_jax
    from imagen_jax.data.images.transforms import area_downsample
    from imagen_jax.diffusion import noise_conditioning
    from imagen_jax.evaluate.report import Row, Section
    from imagen_jax.evaluate.sharpness import sharpness
    from imagen_jax.image import to_float, to_uint8

    sections = []
    for painter in imagen.painters:
        stage = painter.stage
        if stage.low_size is None:
            continue
        low = exam.at(stage.low_size)
        alone = dataclasses.replace(imagen, painters=(painter,))
        sharp = alone.paint(
            exam.captions,
            seed=options.seed,
            request=imagen_jax.Request(low_res=low),
            batch_size=options.batch_size,
            following=following,
        )[stage.name]
        blurred = np.asarray(
            to_uint8(noise_conditioning.upsample(to_float(low), factor=stage.factor))
        )
        real = exam.at(stage.size)
        rows = tuple(
            Row(name=name, scores=_score(found, exam.captions))
            for name, found in (("stage", sharp), ("bilinear", blurred), ("ceiling", real))
        )
        kept = np.abs(area_downsample(sharp, stage.factor).astype(float) - low).mean()
        errors = [np.abs(x.astype(float) - real).mean() for x in (sharp, blurred)]
        crisp = [sharpness(x) / sharpness(real) for x in (sharp, blurred)]
        sections.append(
            Section(
                title=f"{stage.name}: from real {stage.low_size}-px pictures",
                rows=rows,
                text=f"Mean distance of the output, downsampled, to its input: {kept:.1f} of 255. "
                f"Mean error against the real picture: stage {errors[0]:.1f}, "
                f"bilinear {errors[1]:.1f}. "
                f"Sharpness of edges, the real ones being 1: stage {crisp[0]:.2f}, "
                f"bilinear {crisp[1]:.2f}.",
            )
        )
    return sections


def _swept(
    imagen: "Imagen", exam: "EvalSet", options: Options, following: "SamplingCallbacks"
) -> list["Section"]:
    """The first judgeable stage over guidance weights of the base stage."""
    from imagen_jax.evaluate import report

    if not options.sweep:
        return []
    base, judged = imagen.painters[0].stage.name, _judgeable(imagen)[0].name
    captions = exam.captions[: options.sweep_pictures]
    swept: dict[float, Scores] = {}
    for weight in options.sweep:
        painted = imagen.with_sampler({"guidance_weight": weight}, stage=base).paint(
            captions,
            seed=options.seed,
            until=judged,
            batch_size=options.batch_size,
            following=following,
        )
        swept[weight] = _score(painted[judged], captions)
    report.plot_sweep(options.out / "guidance.png", swept, label=f"guidance weight of {base}")
    rows = tuple(report.Row(name=f"w = {w:g}", scores=s) for w, s in swept.items())
    title = f"{judged}: guidance weight of {base}"
    return [report.Section(title=title, rows=rows, picture="guidance.png")]


def _losses(options: Options) -> list["Section"]:
    """Loss curves, from the runs' own logs; an exported cascade has none."""
    from imagen_jax.evaluate import report
    from imagen_jax.pretrained.locate import find_cascade

    folder = find_cascade(options.cascade)
    inside = (f for f in folder.glob("*/metrics.jsonl") if not f.parent.name.startswith("."))
    files = sorted([*inside, *folder.glob("metrics.jsonl")])
    runs = {}
    for file in files:
        runs[file.parent.name] = [
            (line["step"], line["loss"]) for line in log_files.read_entries(file, "step", "loss")
        ]
    if not runs:
        return []
    options.out.mkdir(parents=True, exist_ok=True)
    report.plot_losses(options.out / "losses.png", runs)
    return [report.Section(title="Training loss", picture="losses.png")]


def _score(pictures: np.ndarray, captions: Sequence[str]) -> "Scores":
    from imagen_jax.evaluate import alignment

    return alignment.score(list(pictures), list(captions))
