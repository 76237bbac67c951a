"""`imagen score IMAGES`: FID, CMMD, CLIP score, precision and recall of any images."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from imagen_jax import config
from imagen_jax.cli import parsing
from imagen_jax.cli.image_progress import image_progress
from imagen_jax.io import removal

if TYPE_CHECKING:
    from imagen_jax.metrics.image_set import ImageSet
    from imagen_jax.metrics.networks import MetricNetwork

USAGE = """Score images by the field's metrics, and say with what and on what.

Weights are your own files: pt_inception-2015-12-05-6726825d.pth, or what `imagen convert inception`
made of it, and CLIP models in folders as Hugging Face has them. Writes score.json, which names
preprocessing, counts, reference and the SHA-256 of weights, and statistics.safetensors, which is a
--reference to later scores. Without --reference only CLIP score and statistics are computed. A
score that was interrupted resumes with the same command.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a score."""

    images: tyro.conf.Positional[str]
    """Folder of images, of `imagen sample` or `imagen encode`, or any source of images with
    captions; `imagen encode --help` lists the forms."""
    reference: str = ""
    """Real images, in any of these forms; or their statistics: a folder that this command wrote, or
    a .safetensors or .npz file."""
    metrics: str = "fid"
    """fid, cmmd, clip and precision-recall, with commas between."""
    inception: Path | None = None
    """FID's weights; precision and recall are of the same network."""
    clip: Path | None = None
    """Folder of the CLIP score's model, such as ViT-B/32's."""
    cmmd_clip: Path | None = None
    """Folder of CMMD's model, ViT-L/14 at 336 px; default: --clip."""
    prompts: Path | None = None
    """File with a prompt a line, one for each image in the order of names; default: captions."""
    size: config.Side | None = None
    """Resize the short side of each image to so many pixels, and crop its middle."""
    batch_size: config.BatchSize = 32
    """Images computed at once."""
    out: Path = Path("score")
    """Folder to write to."""
    data_dir: Path = Path("data")
    """Folder of datasets, and of indices of tars."""


def run(argv: list[str]) -> None:
    """Parse, score, write, print. Errors: ValueError that names what can't be scored."""
    options = parsing.parse(Options, argv, prog="imagen score", description=USAGE)
    from imagen_jax.metrics import score, statistics_file
    from imagen_jax.metrics.measure import Measurement
    from imagen_jax.parallel import compilation_cache
    from imagen_jax.runtime import lease, preemption

    metrics = score.parse_metrics(options.metrics)
    _check(options, metrics)
    images = _open(options, metrics)
    compilation_cache.use_cache()
    networks = _load(options, metrics)
    unfinished = options.out / preemption.UNFINISHED
    with lease.hold(options.out, command="imagen score", option="--out"):
        with image_progress(unfinished, "scoring") as progress:
            measurement = Measurement(
                networks=networks,
                size=options.size,
                batch_size=options.batch_size,
                keep_inception="precision-recall" in metrics,
                unfinished=unfinished,
                progress=progress,
            )
            found, reference = measurement.measure(images, what="images"), None
            if options.reference:
                reference = measurement.reference(options.reference, data_dir=options.data_dir)
        numbers = score.compute(metrics, found, reference)
        notes = score.warnings_of(metrics, found, reference)
        found.save(options.out / statistics_file.FILE)
        sets = {"images": found.about} | ({"reference": reference.about} if reference else {})
        _write(options.out, {"metrics": numbers, **sets, "warnings": notes})
        with contextlib.suppress(OSError):  # it holds what the output has, and only takes room
            removal.remove_folder(unfinished)
    for note in notes:
        warnings.warn(note, stacklevel=1)
    for name, number in numbers.items():
        print(f"{name:<10}{number:.6g}")
    print(f"{len(images):,} images; all of it is in {options.out}")


def _check(options: Options, metrics: Sequence[str]) -> None:
    """Errors: ValueError for a metric without weights, or an option that no metric reads."""
    given = {
        "--inception": (options.inception, {"fid", "precision-recall"}),
        "--clip": (options.clip, {"clip"} if options.cmmd_clip else {"clip", "cmmd"}),
        "--cmmd-clip": (options.cmmd_clip, {"cmmd"}),
        "--prompts": (options.prompts, {"clip"}),
        "--reference": (options.reference, {"fid", "cmmd", "precision-recall"}),
    }
    for option, (value, readers) in given.items():
        if value and not readers & set(metrics):
            raise ValueError(
                f"{option} {value} is of {' and '.join(sorted(readers))}, but --metrics has "
                f"{options.metrics}: leave it out, or add one"
            )
    needed = {
        "fid": ("--inception FILE", options.inception),
        "precision-recall": ("--inception FILE", options.inception),
        "clip": ("--clip FOLDER", options.clip),
        "cmmd": ("--cmmd-clip FOLDER", options.cmmd_clip or options.clip),
    }
    for metric in metrics:
        option, value = needed[metric]
        if value is None:
            raise ValueError(f"{metric} needs the weights of its network: give {option}")


def _open(options: Options, metrics: Sequence[str]) -> ImageSet:
    """The images, with prompts. Errors: ValueError where a metric needs them and there are none."""
    from imagen_jax.cli import prompts
    from imagen_jax.metrics import image_set

    images = image_set.open_images(options.images, data_dir=options.data_dir)
    if options.prompts is not None:
        images = images.with_prompts(prompts.read_prompts(options.prompts))
    if "clip" in metrics and not images.captioned:
        raise ValueError(
            f"the CLIP score needs a prompt for each image, and {options.images} has none: give "
            "--prompts FILE"
        )
    return images


def _load(options: Options, metrics: Sequence[str]) -> list[MetricNetwork]:
    """Load the networks that the metrics need, once each."""
    from imagen_jax.metrics import networks, score

    wanted = {score.NETWORKS[metric] for metric in metrics}
    found = []
    if networks.INCEPTION in wanted and options.inception:
        found.append(networks.load_inception(options.inception))
    if networks.CMMD in wanted and (folder := options.cmmd_clip or options.clip):
        found.append(networks.load_cmmd(folder))
    if networks.CLIP in wanted and options.clip:
        found.append(networks.load_clip(options.clip))
    return found


def _write(folder: Path, document: dict[str, Any]) -> None:
    import imagen_jax
    from imagen_jax.io.atomic import write_atomic

    text = json.dumps({**document, "imagen_jax": imagen_jax.__version__}, indent=2)
    write_atomic(folder / "score.json", text + "\n")
