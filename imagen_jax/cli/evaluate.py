"""`imagen eval CASCADE`: judge a cascade's images of shapes against their captions."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from imagen_jax import config, extras
from imagen_jax.cli import parsing
from imagen_jax.cli.image_progress import image_progress
from imagen_jax.evaluate.settings import EvaluationSettings
from imagen_jax.io import removal

USAGE = """Judge images by the alignment oracle: is each attribute as the caption says?

Scores stand beside their ceiling (real images, judged the same way) for combinations seen in
training and for held-out ones; super-resolution stages are also fed real low-resolution images
and compared with bilinear upsampling. Writes index.html, report.md, scores.json and the plots.
"""
RENAMED = {"--pictures": "--images", "--sweep-pictures": "--sweep-images"}  # old options


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of an evaluation."""

    cascade: tyro.conf.Positional[str]
    """Folder of a run, or of the runs of a cascade, or of an exported one, trained on shapes; or
    the name of an embedded cascade, such as shapes."""
    out: Path = Path("evaluation")
    """Folder to write to."""
    settings: Annotated[EvaluationSettings, tyro.conf.arg(name="")] = EvaluationSettings()


def run(argv: list[str]) -> None:
    """Parse, evaluate, write the page and print its tables."""
    parsing.refuse_renamed(argv, RENAMED)
    options = parsing.parse(Options, argv, prog="imagen eval", description=USAGE)
    config.check_options(options.settings)
    extras.require("matplotlib", "imagen eval draws plots, which need")
    import imagen_jax
    from imagen_jax.evaluate import evaluate, report
    from imagen_jax.io.atomic import check_names
    from imagen_jax.parallel import compilation_cache
    from imagen_jax.pretrained.locate import find_cascade
    from imagen_jax.runtime import lease, preemption

    compilation_cache.use_cache()
    unfinished = options.out / preemption.UNFINISHED
    imagen = dataclasses.replace(imagen_jax.load(options.cascade), cache_dir=unfinished)
    evaluate.check_cascade(imagen)
    check_names(options.out, files=report.FILES, folders=(preemption.UNFINISHED,))
    with lease.hold(options.out, command="imagen eval", option="--out"):
        with image_progress(unfinished, "sampling") as progress:
            found = evaluate.evaluate(
                imagen,
                options.settings,
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
