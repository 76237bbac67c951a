"""`imagen score IMAGES`: FID, CMMD, CLIP score, precision and recall of any images."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from imagen_jax import config
from imagen_jax.cli import metric_options, parsing
from imagen_jax.cli.image_progress import image_progress
from imagen_jax.cli.metric_options import MetricOptions
from imagen_jax.io import removal

if TYPE_CHECKING:
    from imagen_jax.metrics.image_set import ImageSet

USAGE = """Score images by the field's metrics, and say with what and on what.

Weights are your own files: pt_inception-2015-12-05-6726825d.pth, or what `imagen convert inception`
made of it, and CLIP models in folders as Hugging Face has them. Writes score.json, which names
preprocessing, counts, reference and the SHA-256 of weights, and statistics.safetensors, which is a
--reference to later scores. Without --reference only CLIP score and statistics are computed. A
score that was interrupted resumes with the same command.
"""
PREFERENCES = ".csv"  # ending of files of answers


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a score."""

    images: tyro.conf.Positional[str]
    """Folder of images, of `imagen sample` or `imagen encode`, or any source of images;
    `imagen encode --help` lists the forms. Or preferences.csv, what people answered on a page of
    `imagen eval --pairs`, or several as 'FOLDER/*.csv'."""
    metrics: str = "fid"
    """fid, cmmd, clip and precision-recall, with commas between."""
    prompts: Path | None = None
    """File with a prompt a line, one for each image in the order of names; default: captions."""
    networks: Annotated[MetricOptions, tyro.conf.arg(name="")] = MetricOptions()
    batch_size: config.BatchSize = 32
    """Images computed at once, 256 at most."""
    out: Path = Path("score")
    """Folder to write to."""


def run(argv: list[str]) -> None:
    """Parse, score, write, print. Errors: ValueError that names what can't be scored."""
    options = parsing.parse(Options, argv, prog="imagen score", description=USAGE)
    if options.images.endswith(PREFERENCES):
        _score_answers(options)
        return
    from imagen_jax.metrics import measure, score
    from imagen_jax.parallel import compilation_cache

    metrics = score.parse_metrics(options.metrics)
    if options.prompts and "clip" not in metrics:
        metric_options.refuse_unread("--prompts", options.prompts, {"clip"}, metrics)
    metric_options.check(options.networks, metrics)
    images = _open(options, metrics)
    reference_at = options.networks.reference
    compared = (
        measure.open_reference(reference_at, options.networks.data_dir) if reference_at else None
    )
    compilation_cache.use_cache()
    numbers, notes = _score(options, metrics, images, compared)
    for note in notes:
        warnings.warn(note, stacklevel=1)
    for name, number in numbers.items():
        print(f"{name:<10}{number:.6g}")
    print(f"{len(images):,} images; all of it is in {options.out}")


def _score_answers(options: Options) -> None:
    """Score what people answered. Errors: ValueError for options that are of images."""
    if options != Options(images=options.images, out=options.out):
        raise ValueError(f"{options.images} has answers of people: of options, give --out alone")
    from imagen_jax.cli import score_preferences

    score_preferences.run(options.images, options.out)


def _score(
    options: Options, metrics: Sequence[str], images: ImageSet, compared: ImageSet | Path | None
) -> tuple[dict[str, float], list[str]]:
    """Measure, and write; the numbers and what there is to say of them."""
    from imagen_jax.metrics import measure, parts, score, statistics_file
    from imagen_jax.runtime import lease, preemption

    networks = metric_options.load(options.networks, metrics)
    unfinished = options.out / preemption.UNFINISHED
    with lease.hold(options.out, command="imagen score", option="--out"):
        total = len(images) + (0 if compared is None else measure.count_images(compared))
        with image_progress(unfinished, "scoring", total=total, kept=parts.KEPT) as progress:
            measurement = measure.Measurement(
                networks=networks,
                size=options.networks.size,
                batch_size=options.batch_size,
                keep_inception="precision-recall" in metrics,
                unfinished=unfinished,
                progress=progress,
            )
            found = measurement.measure(images, what="images")
            reference = None if compared is None else measurement.reference(compared)
        numbers = score.compute(metrics, found, reference)
        notes = score.warnings_of(metrics, found, reference)
        found.save(options.out / statistics_file.FILE)
        sets = {"images": found.about} | ({"reference": reference.about} if reference else {})
        _write(options.out, {"metrics": numbers, **sets, "warnings": notes})
        with contextlib.suppress(OSError):  # it holds what the output has, and only takes room
            removal.remove_folder(unfinished)
    return numbers, notes


def _open(options: Options, metrics: Sequence[str]) -> ImageSet:
    """The images, with prompts. Errors: ValueError where a metric needs them and there are none."""
    from imagen_jax.cli import prompts
    from imagen_jax.metrics import image_set

    images = image_set.open_images(options.images, data_dir=options.networks.data_dir)
    if options.prompts is not None:
        images = images.with_prompts(prompts.read_prompts(options.prompts))
    if "clip" in metrics and not images.captioned:
        raise ValueError(
            f"the CLIP score needs a prompt for each image, and {options.images} has none: give "
            "--prompts FILE"
        )
    return images


def _write(folder: Path, document: dict[str, Any]) -> None:
    import imagen_jax
    from imagen_jax.io.atomic import write_atomic

    text = json.dumps({**document, "imagen_jax": imagen_jax.__version__}, indent=2)
    write_atomic(folder / "score.json", text + "\n")
