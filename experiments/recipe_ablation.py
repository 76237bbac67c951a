"""The recipe by comparison: short runs of variants of the base stage, judged alike.

Every variant differs from the config in one thing (`variants.py`). Each trains for the same time,
so that a wider network pays for its width, and its learning rate still falls to its end.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib import command, recipe_judges, runs, variants
from lib.recipe_judges import Folders, RecipeJudge
from lib.results import (
    Page,
    collect_settings,
    read_results,
    shell_command,
    write_page,
    write_results,
)
from matplotlib.figure import Figure
from tqdm import tqdm

import imagen_jax
from imagen_jax import config, models
from imagen_jax.text.encoder import TextEncoder

NAME = "recipe_ablation"
PLAN = "plan.json"  # of a run: how many steps fit into its minutes


@dataclasses.dataclass(frozen=True)
class Options(runs.Options):
    """Variants, and the length of their training."""

    only: tuple[str, ...] = ()
    """Rows (predicts=eps) or kinds of rows (predicts); default: all. Rows done before are kept."""
    width: config.Positive = 1.0
    """Multiply the channels of the baseline, and so of every row, by this: a narrow network sees
    more images in the same time."""
    minutes: config.Positive = 10.0
    """Training time of each run without compiling: its step is timed first, then its number of
    steps is fixed."""
    steps: config.Count | None = None
    """Train each run for so many steps instead."""
    images: config.Count = 192
    """Captions to judge."""


def run(options: Options) -> None:
    """Train and judge every chosen variant that is not done yet, then write table and plot."""
    base = baseline(options)
    judge = make_judge(base, options)
    rows = [row for row in variants.choose(options.only) if judge.judges(row)]
    chosen = [(row, row.apply(base)) for row in rows]
    settings = collect_settings(options, base, leave_out=("only", "configs", "batch_size"))
    results = read_results(options.out, NAME, settings)
    encoder = TextEncoder.from_config(base.text)
    for row, experiment in tqdm(chosen, desc=NAME, unit="row"):
        if row.name in results:
            continue
        if row.name != variants.BASELINE and row.plain is None and experiment == base:
            continue  # the config's own choice
        results[row.name] = _train_and_judge(
            row, experiment, base, judge, encoder=encoder, options=options
        )
        write_results(options.out, NAME, settings, results)
    if not results:
        raise ValueError(
            f"--only {' '.join(options.only)}: all of it is what {options.configs} does already; "
            f"give --only {variants.BASELINE}"
        )
    _write(results, judge, options)


def make_judge(base: config.Experiment, options: Options) -> RecipeJudge:
    """What judges the variants of the base stage."""
    return recipe_judges.make_judge(
        base,
        images=options.images,
        seed=options.seed,
        batch_size=options.batch_size,
        folders=Folders(options.data_dir, options.workdir / NAME),
    )


def baseline(options: Options) -> config.Experiment:
    """The config's base stage, at the width that was asked for."""
    base = config.load(options.configs)[0]
    if options.width == 1.0:
        return base
    model = variants.widened(base.stage.model, options.width)
    return dataclasses.replace(base, stage=dataclasses.replace(base.stage, model=model))


def _train_and_judge(
    row: variants.Variant,
    experiment: config.Experiment,
    base: config.Experiment,
    judge: RecipeJudge,
    *,
    encoder: TextEncoder,
    options: Options,
) -> dict[str, Any]:
    """One row's numbers; rows that differ in sampling or captions alone share a run."""
    changes = runs.differences(base, experiment)
    trains_alike = not any(map(runs.matters, changes))
    workdir = options.workdir / NAME / (variants.BASELINE if trains_alike else row.name)
    steps = options.steps or _fitting_steps(experiment, workdir, encoder, options)
    timed = dataclasses.replace(
        experiment, train=dataclasses.replace(experiment.train, steps=steps)
    )
    runs.train(timed, workdir, data_dir=options.data_dir, encoder=encoder)
    sampler = dataclasses.asdict(experiment.stage.sampler)
    imagen = imagen_jax.load(workdir).with_sampler(sampler)
    return {
        "changes": {name: list(pair) for name, pair in changes.items()},
        "parameters": models.count_parameters(imagen.stages[0].device_params()),
        "steps": steps,
        "images_seen": steps * experiment.train.batch_size,
        "step_seconds": runs.step_seconds(workdir),
        "loss": runs.losses(workdir)[-1]["loss"],
        "noise_error": judge.noise_error(imagen, row),
        "scores": judge.score(imagen, row),
    }


def _fitting_steps(
    experiment: config.Experiment, workdir: Path, encoder: TextEncoder, options: Options
) -> int:
    """Number of steps that fit into the minutes; timed once for a run, which then keeps to it."""
    file = workdir / PLAN
    if file.is_file():
        plan = json.loads(file.read_text())
        if plan["minutes"] == options.minutes:
            return plan["steps"]
    seconds = runs.measure(experiment, data_dir=options.data_dir, encoder=encoder)
    steps = max(1, round(60 * options.minutes / seconds))
    tqdm.write(
        f"{workdir.name}: {1000 * seconds:.0f} ms a step, {steps} steps in {options.minutes:g} min"
    )
    workdir.mkdir(parents=True, exist_ok=True)
    plan = {"minutes": options.minutes, "step_seconds": seconds, "steps": steps}
    file.write_text(json.dumps(plan) + "\n")
    return steps


def _write(results: Mapping[str, Mapping[str, Any]], judge: RecipeJudge, options: Options) -> None:
    order = [row.name for row in variants.table() if row.name in results]
    length = f"{options.steps} steps" if options.steps else f"{options.minutes:g} minutes"
    narrowed = "" if options.width == 1.0 else f" at {options.width:g} of its channels"
    page = Page(
        title="Variants of the base stage",
        text=f"The base stage of `{options.configs}`{narrowed} with one thing changed, trained for "
        f"{length} each and judged on {options.images} {judge.captions} (percent right). "
        "Loss is that of training, each variant's own; the error is "
        "that of the noise prediction on held-out images, mean over logsnr -6 to 6, comparable "
        "between all. One seed.",
        rows=[_cells(name, results[name], judge) for name in order],
        figure=plot({name: judge.marks(results[name]["scores"]) for name in order}),
    )
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def _cells(name: str, found: Mapping[str, Any], judge: RecipeJudge) -> dict[str, str]:
    changes = [f"{field} {old} to {new}" for field, (old, new) in found["changes"].items()]
    return {
        "variant": name,
        "change": "; ".join(changes) or "-",
        "parameters": f"{found['parameters'] / 1e6:.2f} M",
        "steps": str(found["steps"]),
        "images": f"{found['images_seen'] / 1000:.0f} k",
        "ms/step": f"{1000 * found['step_seconds']:.0f}",
        "loss": f"{found['loss']:.4f}",
        "error": f"{found['noise_error']:.4f}",
        **judge.cells(found["scores"]),
    }


def plot(results: Mapping[str, Mapping[str, float]]) -> Figure:
    """Shares by variant, one line each; the baseline's are vertical lines."""
    figure = Figure(figsize=(7, 1.5 + 0.22 * len(results)), layout="constrained")
    axis = figure.subplots()
    places = list(range(len(results)))
    for number, name in enumerate(next(iter(results.values()))):
        colour, marker = f"C{number // 2}", "o|"[number % 2]
        shares = [found[name] for found in results.values()]
        axis.plot(shares, places, marker, color=colour, label=name)
        if variants.BASELINE in results:
            same = results[variants.BASELINE][name]
            axis.axvline(same, color=colour, alpha=0.3, linewidth=0.8)
    axis.set_yticks(places, list(results), fontsize=7)
    axis.invert_yaxis()
    axis.set(xlabel="percent right", xlim=(-2, 102))
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
