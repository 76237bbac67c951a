"""Efficient U-Net against U-Net for super-resolution (section 2.5, appendix B.1).

Trains the first super-resolution stage of a cascade twice, with its Efficient U-Net and with a
base-style U-Net of about as many parameters, all else equal. The paper: it converges faster and
takes less time and memory.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lib import command, runs, scoring
from lib.results import (
    Page,
    collect_settings,
    read_results,
    shell_command,
    write_page,
    write_results,
)
from lib.twin import twin
from matplotlib.figure import Figure

import imagen_jax
from imagen_jax import config, models
from imagen_jax.data.images import transforms
from imagen_jax.diffusion import noise_conditioning
from imagen_jax.evaluate.eval_set import EvalSet, balanced_eval_set
from imagen_jax.image import to_float, to_uint8
from imagen_jax.imagen import Imagen
from imagen_jax.io import log_files
from imagen_jax.sample.request import Request
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.train.state import TrainState

NAME = "efficient_unet"
ERRORS = "errors.jsonl"  # of a run, beside its log
LINES = 5  # of the log between two evaluations, so that they disturb the median speed little


@dataclasses.dataclass(frozen=True)
class Options(runs.Options):
    """Length of the training, and what is judged."""

    steps: config.Count = 2000
    """Training steps of each network."""
    evaluate_every: config.Count = 200
    """Steps between two measurements of the error."""
    images: config.Count = 64
    """Held-out images, half with one object and half with two."""

    def __post_init__(self) -> None:
        config.check_options(self)
        if self.steps % self.evaluate_every or self.evaluate_every % LINES:
            raise ValueError(
                f"evaluate_every={self.evaluate_every} must divide steps={self.steps} and be a "
                f"multiple of {LINES}"
            )


def run(options: Options) -> None:
    """Train both networks, then write table and plot."""
    networks = experiments(options)
    base = networks["Efficient U-Net"]
    settings = collect_settings(options, base, leave_out=("configs", "batch_size"))
    results = read_results(options.out, NAME, settings)
    encoder = TextEncoder.from_config(base.text)
    exam = balanced_eval_set(
        base.data.dataset, count=options.images, seed=options.seed, size=base.stage.size
    )
    for name, experiment in networks.items():
        if name not in results:
            results[name] = _train(experiment, encoder, exam, options)
            write_results(options.out, NAME, settings, results)
    _write(results, bilinear_error(exam, base.stage), options)


def experiments(options: Options) -> dict[str, config.Experiment]:
    """Both runs: the learning rate stays constant, so that every point of a curve compares.

    Errors: ValueError when the config has no super-resolution stage with an Efficient U-Net.
    """
    every = options.evaluate_every
    cascade_ = config.load(options.configs)
    found = [e for e in cascade_ if isinstance(e.stage.model, config.EfficientUNet)]
    if not found:
        raise ValueError(f"{options.configs} has no stage with an Efficient U-Net")
    base = found[0]
    base = dataclasses.replace(
        base,
        optim=dataclasses.replace(base.optim, schedule="constant"),
        train=dataclasses.replace(
            base.train, steps=options.steps, log_every=every // LINES, save_every=every
        ),
    )
    stage = dataclasses.replace(base.stage, model=twin(base))
    return {"Efficient U-Net": base, "U-Net": dataclasses.replace(base, stage=stage)}


def _train(
    experiment: config.Experiment, encoder: TextEncoder, exam: EvalSet, options: Options
) -> dict[str, Any]:
    """One network's curves and final scores."""
    workdir = options.workdir / NAME / type(experiment.stage.model).__name__
    judge = functools.partial(_judge, exam=exam, encoder=encoder, options=options)
    measured = log_files.JsonLines(workdir / ERRORS)

    def measure(step: int, state: TrainState, _: object) -> None:
        if step % options.evaluate_every == 0 and step < options.steps:
            module = models.build(experiment.stage.model)
            painter = TrainedStage(stage=experiment.stage, module=module, params=state.ema)
            error, _scores = judge(painter)
            measured.add({"step": step, "error": error})

    runs.train(experiment, workdir, data_dir=options.data_dir, encoder=encoder, hooks=[measure])
    # The last point is measured from what was saved: a run that was cut off after its last step
    # comes to it all the same.
    (painter,) = imagen_jax.load(workdir).stages
    error, scores = judge(painter)
    return {
        "parameters": models.count_parameters(painter.device_params()),
        "step_seconds": runs.step_seconds(workdir),
        "losses": [[line["step"], line["loss"]] for line in runs.losses(workdir)],
        "errors": [*_errors(workdir), [options.steps, error]],
        "scores": scores,
    }


def _judge(
    painter: TrainedStage, *, exam: EvalSet, encoder: TextEncoder, options: Options
) -> tuple[float, scoring.Scores]:
    """Mean distance to the real images (0 to 255), fed with these downsampled, and scores."""
    stage = painter.stage
    sampled = Imagen((painter,), encoder).sample(
        exam.captions,
        seed=options.seed,
        request=Request(low_res=transforms.area_downsample(exam.real, stage.factor)),
        batch_size=options.batch_size,
    )[stage.name]
    return distance(sampled, exam), scoring.score(sampled, exam)


def distance(sampled: np.ndarray, exam: EvalSet) -> float:
    """Mean absolute difference to the real images, in steps of 255."""
    return float(np.abs(sampled.astype(np.float64) - exam.real).mean())


def bilinear_error(exam: EvalSet, stage: config.Stage) -> float:
    """The error of plain upsampling, which a network has to beat."""
    low = to_float(transforms.area_downsample(exam.real, stage.factor))
    large = noise_conditioning.upsample(low, factor=stage.factor)
    return distance(np.asarray(to_uint8(large)), exam)


def _errors(workdir: Path) -> list[list[int | float]]:
    """Measurements of the hook, one per step: a resumed run measured some steps twice."""
    by_step = {
        line["step"]: line["error"]
        for line in log_files.read_entries(workdir / ERRORS, "step", "error")
    }
    return [[step, by_step[step]] for step in sorted(by_step)]


def at_equal_time(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Steps, loss and error of each network when the faster one has made its last step."""
    ends = [found["step_seconds"] * found["errors"][-1][0] for found in results.values()]
    table: dict[str, dict[str, float]] = {}
    for name, found in results.items():
        steps = min(ends) / found["step_seconds"]
        table[name] = {"seconds": min(ends), "steps": steps}
        for what in ("losses", "errors"):
            table[name][what] = float(np.interp(steps, *zip(*found[what], strict=True)))
    return table


def _write(results: Mapping[str, Mapping[str, Any]], bilinear: float, options: Options) -> None:
    equal = at_equal_time(results)
    page = Page(
        title="Efficient U-Net against U-Net, as super-resolution networks",
        text=f"The first super-resolution stage of `{options.configs}` with both networks, "
        f"{options.steps} steps each at a constant learning rate. The error is the mean distance "
        f"to {options.images} held-out real images (of 255), sampled from these downsampled; "
        f"bilinear upsampling has {bilinear:.2f}. Equal time is when the faster network has made "
        "its last step; compiling does not count. One seed.",
        rows=[_row(name, found, equal[name]) for name, found in results.items()],
        figure=plot(results, bilinear),
    )
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def _row(name: str, found: Mapping[str, Any], equal: Mapping[str, float]) -> dict[str, str]:
    both = found["scores"]["both"]
    return {
        "network": name,
        "parameters": f"{found['parameters'] / 1e6:.3f} M",
        "ms/step": f"{1000 * found['step_seconds']:.0f}",
        "equal steps: loss": f"{found['losses'][-1][1]:.5f}",
        "error": f"{found['errors'][-1][1]:.2f}",
        f"equal time ({equal['seconds']:.0f} s): steps": f"{equal['steps']:.0f}",
        "loss": f"{equal['losses']:.5f}",
        "error ": f"{equal['errors']:.2f}",
        **{f"{name}, %": f"{100 * both[name]:.0f}" for name in ("colour", "shape", "all")},
    }


def plot(results: Mapping[str, Mapping[str, Any]], bilinear: float) -> Figure:
    """Error and loss against steps and against seconds."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    grid = figure.subplots(2, 2, sharey="row")
    scales: list[tuple[str, Callable[[Mapping[str, Any]], float]]] = [
        ("steps", lambda found: 1.0),
        ("seconds of training", lambda found: found["step_seconds"]),
    ]
    for axes, what, label in (
        (grid[0], "errors", "distance to real images"),
        (grid[1], "losses", "training loss"),
    ):
        for axis, (unit, scale) in zip(axes, scales, strict=True):
            for name, found in results.items():
                steps, values = np.array(found[what]).T
                axis.plot(steps * scale(found), values, label=name)
            axis.set(xlabel=unit, ylabel=label, yscale="log")
            axis.grid(alpha=0.3)
        if what == "errors":
            for axis in axes:
                axis.axhline(bilinear, color="grey", linestyle=":", label="bilinear")
                axis.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
