"""Settings of sampling from a trained base stage: sampler, steps, guidance, threshold, wording.

The rows of `variants.py` that change nothing about training, each judged on the same weights with
the same captions and noise.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from lib import command, runs, scoring, variants
from lib.results import (
    Page,
    collect_settings,
    read_results,
    shell_command,
    write_page,
    write_results,
)
from recipe_ablation import plot
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.evaluate.eval_set import balanced_eval_set
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.load import load

NAME = "sampler_ablation"
KINDS = ("baseline", "guidance", "sampler", "sampling_steps", "threshold", "wording")


@dataclasses.dataclass(frozen=True)
class Options:
    """Cascade, and the settings of its sampling."""

    cascade: str = "shapes"
    """An embedded cascade's name, or a folder of runs; its base stage samples."""
    only: tuple[str, ...] = KINDS
    """Rows (sampler=ddim) or kinds of rows (sampler). Rows done before are kept."""
    images: config.Count = 128
    """Captions to judge, half with one object and half with two."""
    seed: config.Seed = 1
    """Seed of the captions and of the noise."""
    batch_size: config.Count = 64
    """Images sampled at once."""
    out: Path = Path("results")
    """Folder of plot, table and numbers."""


def run(options: Options) -> None:
    """Sample and judge every row that is not done yet, then write table and plot.

    Errors: ValueError for a row that would have to be trained.
    """
    imagen = load(options.cascade)
    base = imagen.experiments[0]
    chosen = {row: row.apply(base) for row in variants.choose(options.only)}
    for row, experiment in chosen.items():
        if any(map(runs.matters, runs.differences(base, experiment))):
            raise ValueError(
                f"--only {row.name}: this row is trained, not only sampled; see recipe"
            )
    settings = collect_settings(options, base, leave_out=("only", "batch_size"))
    results = read_results(options.out, NAME, settings)
    for row, experiment in tqdm(chosen.items(), desc=NAME, unit="row"):
        is_own = row.plain is None and experiment == base
        if row.name not in results and (row.name == variants.BASELINE or not is_own):
            results[row.name] = _judge(imagen, row, experiment, options)
            write_results(options.out, NAME, settings, results)
    _write(results, base, options)


def _judge(
    imagen: Imagen, row: variants.Variant, experiment: config.Experiment, options: Options
) -> dict[str, Any]:
    """One row's changes and scores."""
    base, stage = imagen.experiments[0], experiment.stage
    first = dataclasses.replace(imagen, stages=imagen.stages[:1])
    exam = balanced_eval_set(
        base.data.dataset,
        count=options.images,
        seed=options.seed,
        size=stage.size,
        plain=row.plain,
    )
    scores = scoring.sample_and_score(
        first.with_sampler(dataclasses.asdict(stage.sampler)),
        exam,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    jax.clear_caches()  # each sampler is a program of its own
    changes = runs.differences(base, experiment)
    return {"changes": {name: list(pair) for name, pair in changes.items()}, "scores": scores}


def _write(
    results: Mapping[str, Mapping[str, Any]], base: config.Experiment, options: Options
) -> None:
    ordered = {r.name: results[r.name] for r in variants.table() if r.name in results}
    sampler = base.stage.sampler
    page = Page(
        title="How the base stage samples",
        text=f"Stage {base.stage.name} of `{options.cascade}` with one thing changed, judged on "
        f"{options.images} new captions, half with one object and half with two (percent right). "
        f"The baseline: {sampler.kind}, {sampler.steps} steps, guidance "
        f"{sampler.guidance_weight:g}, threshold {sampler.threshold}, captions "
        "worded as in the dataset.",
        rows=[
            {
                "variant": name,
                "change": "; ".join(f"{f} {old} to {new}" for f, (old, new) in x["changes"].items())
                or "-",
                **scoring.attribute_cells(x["scores"]),
            }
            for name, x in ordered.items()
        ],
        figure=plot(ordered),
    )
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
