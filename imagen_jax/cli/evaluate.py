"""`imagen eval CASCADE`: score a cascade's images, of shapes' captions or of a file of prompts."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from imagen_jax import config, extras
from imagen_jax.cli import lora_option, parsing, sampler_overrides
from imagen_jax.cli.image_progress import image_progress
from imagen_jax.cli.metric_options import MetricOptions
from imagen_jax.cli.sampler_options import SamplerOptions
from imagen_jax.evaluate.protocols import Layout, ProtocolName
from imagen_jax.evaluate.settings import EvaluationSettings
from imagen_jax.io import removal

if TYPE_CHECKING:
    from imagen_jax import Imagen

USAGE = """Score the images of a cascade, and write one page of it.

Without --prompts the alignment oracle judges a cascade of shapes: is each attribute as the caption
says? Scores stand beside their ceiling (real images, judged the same way) for combinations seen in
training and for held-out ones; super-resolution stages are also fed real low-resolution images
and compared with bilinear upsampling. Writes index.html, report.md, scores.json and the plots.

With --prompts FILE the prompts of a benchmark are sampled and scored by --metrics, those of the
--protocol by default. Writes index.html, report.json and the images. A command that was interrupted
resumes, and ends in the same numbers.

With --pairs A B, two folders of images, and --prompts FILE writes a page on which people compare
them, blind; `imagen score preferences.csv` says what they prefer.
"""
RENAMED = {"--pictures": "--images", "--sweep-pictures": "--sweep-images"}  # old options


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of an evaluation."""

    cascade: tyro.conf.Positional[str] = ""
    """Folder of a run, or of the runs of a cascade, or of an exported one; or the name of an
    embedded cascade, such as shapes. None with --pairs."""
    out: Path = Path("evaluation")
    """Folder to write to."""
    images: config.Images | None = None
    """Prompts of each kind, seen and held out, by default 64; of --prompts, how many are drawn by
    the seed, by default all."""
    sweep: tuple[config.Finite, ...] | None = None
    """Guidance weights of the base stage to compare, by default 1, 2 and 4; of --prompts by default
    the cascade's own alone; --sweep without a number to skip."""
    sweep_images: config.Images | None = None
    """Prompts for each weight of the sweep, by default 64; of --prompts, always all."""
    grid: config.Images = 16
    """Prompts in the grid."""
    seed: config.Seed = 1
    """Seed of the prompts and of the noise; with --pairs, of the order."""
    batch_size: config.BatchSize = 32
    """Images sampled at once."""
    lora: tuple[str, ...] = ()
    """Adapters to merge into a stage, each with its weight if not 1, as in `imagen sample`."""

    prompts: Path | None = None
    """Prompts, with categories if it has some: .txt, .csv, .tsv, .json or .jsonl file, MS-COCO's
    captions, or a folder of .txt files."""
    protocol: ProtocolName | None = None
    """How to sample and score the prompts; other options come first."""
    metrics: str | None = None
    """fid, cmmd, clip, precision-recall, shapes (the alignment oracle) and retrieval (of the
    reference's image of the prompt), with commas between; "" for none."""
    images_per_prompt: config.Images | None = None
    """Images of each prompt."""
    prompt_column: str = ""
    """Column or field of the prompts; default: prompt, prompts, caption or text."""
    category_column: str = ""
    """Column or field of the categories, such as Challenge; default: category or tag, if any."""
    layout: Layout | None = None
    """Also write the images as GenEval's or DPG-Bench's own program reads them."""
    pairs: tuple[Path, Path] | None = None
    """Two folders of images of the prompts to be compared by people."""

    sampler: Annotated[SamplerOptions, tyro.conf.arg(name="")] = SamplerOptions()
    networks: Annotated[MetricOptions, tyro.conf.arg(name="")] = MetricOptions()


# Options of one use alone. Those of every use are not here.
OF_SHAPES = {"sweep_images"}
OF_SAMPLING = {"images", "sweep", "grid", "batch_size", "lora"}
OF_SAMPLING |= {field.name for field in dataclasses.fields(SamplerOptions)}
OF_METRICS = {"protocol", "metrics", "images_per_prompt", "layout"}
OF_METRICS |= {field.name for field in dataclasses.fields(MetricOptions)}
OF_FILES = {"prompt_column", "category_column"}
OF_PAIRS = {"size", "data_dir"}


def run(argv: list[str]) -> None:
    """Parse, evaluate, write the page and print its tables."""
    parsing.refuse_renamed(argv, RENAMED)
    options = parsing.parse(Options, argv, prog="imagen eval", description=USAGE)
    if options.pairs is not None:
        _refuse(options, OF_SHAPES | OF_SAMPLING | OF_METRICS - OF_PAIRS, "with --pairs")
        config.require(not options.cascade, f"{options.cascade} beside --pairs: give one of them")
        config.require(options.prompts is not None, "--pairs needs the prompts: give --prompts")
        from imagen_jax.cli import evaluate_pairs

        evaluate_pairs.run(options)
        return
    config.require(bool(options.cascade), "no cascade: give a folder of one, or its name")
    if options.prompts is not None:
        _refuse(options, OF_SHAPES, "with --prompts")
        from imagen_jax.cli import evaluate_prompts

        evaluate_prompts.run(options)
        return
    _refuse(options, OF_METRICS | OF_FILES, "without --prompts")
    _evaluate_shapes(options)


def _refuse(options: Any, names: set[str], when: str) -> None:
    """Errors: ValueError for an option that is given and would do nothing."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            _refuse(value, names, when)
        elif field.name in names and value != field.default:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            option = field.name.replace("_", "-")
            raise ValueError(f"--{option} {shown} does nothing {when}: leave it out")


def _evaluate_shapes(options: Options) -> None:
    """Judge a cascade of shapes by the alignment oracle."""
    extras.require("matplotlib", "imagen eval draws plots, which need")
    from imagen_jax.evaluate import evaluate, report
    from imagen_jax.io.atomic import check_names
    from imagen_jax.parallel import compilation_cache
    from imagen_jax.pretrained.locate import find_cascade
    from imagen_jax.runtime import lease, preemption

    settings = _settings(options)
    compilation_cache.use_cache()
    unfinished = options.out / preemption.UNFINISHED
    imagen = load_cascade(options)
    imagen = dataclasses.replace(imagen, cache_dir=unfinished)
    evaluate.check_cascade(imagen)
    check_names(options.out, files=report.FILES, folders=(preemption.UNFINISHED,))
    with lease.hold(options.out, command="imagen eval", option="--out"):
        total = evaluate.count_images(imagen, settings)
        with image_progress(unfinished, "sampling", total=total) as progress:
            found = evaluate.evaluate(
                imagen,
                settings,
                title=f"Evaluation of {options.cascade}",
                runs=find_cascade(options.cascade),
                progress=progress,
            )
        page = found.write(options.out)
        with contextlib.suppress(OSError):  # it holds what the output has, and only takes room
            removal.remove_folder(unfinished)
    for section in found.sections:
        if section.rows:
            print(f"\n{section.title}\n{report.markdown_table(section.rows)}")
    print(f"\nthe page is {page}")


def load_cascade(options: Options) -> Imagen:
    """The cascade with its adapters and the sampler that the options name.

    Errors: as `imagen_jax.load` and `lora_option.with_adapters`; ValueError for an option of the
    sampler that no stage reads.
    """
    import imagen_jax
    from imagen_jax.sample.overrides import check_used

    changes = sampler_overrides.read_overrides(vars(options.sampler))
    cascade = lora_option.with_adapters(imagen_jax.load(options.cascade), options.lora)
    cascade = cascade.with_samplers(changes)
    check_used([s.stage for s in cascade.stages], changes, flags=sampler_overrides.FLAGS)
    return cascade


def _settings(options: Options) -> EvaluationSettings:
    """The settings of the oracle, with its own defaults where nothing is given."""
    names = [field.name for field in dataclasses.fields(EvaluationSettings)]
    given = {name: getattr(options, name) for name in names}
    return EvaluationSettings(**{name: x for name, x in given.items() if x is not None})
