"""A larger text encoder against a larger U-Net (section 4.4, fig. 4a and 4b).

Trains the base stage of a cascade with every pair of encoder and U-Net width at equal settings,
then judges its images and its noise prediction on new captions. The paper: scaling the encoder
matters more than scaling the U-Net.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lib import command, random_encoder, runs, scoring, variants
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
from imagen_jax.evaluate.eval_set import balanced_eval_set
from imagen_jax.text.encoder import TextEncoder

NAME = "text_encoder_scaling"
RANDOM, LIKE = "random", "t5_1_1_tiny"


@dataclasses.dataclass(frozen=True)
class Options(runs.Options):
    """Pairs to compare, and the length of their training."""

    encoders: tuple[str, ...] = (LIKE, "t5_1_1_mini", RANDOM)
    """Embedded encoders, folders with a T5X checkpoint, or `random`: t5_1_1_tiny's architecture
    with random weights."""
    unets: tuple[config.Positive, ...] = (0.5, 1.0)
    """Widths of the U-Net as multiples of the config's."""
    steps: config.Count = 3000
    """Training steps of each pair."""
    examples: config.Count = 20_000
    """Examples to encode and train on, the first of the dataset: a wide encoder takes its time."""
    images: config.Count = 192
    """Captions to judge, half with one object and half with two."""


def run(options: Options) -> None:
    """Train and judge every pair, then write table and plot."""
    base = baseline(options)
    widened(base, options.unets)  # refuse an impossible width before anything is trained
    settings = collect_settings(
        options, base, leave_out=("encoders", "unets", "configs", "batch_size")
    )
    results = read_results(options.out, NAME, settings)
    encoders = {Path(name).name: _encoder(name, base, options) for name in options.encoders}
    if len(encoders) < len(options.encoders):
        raise ValueError(f"--encoders: two of {list(options.encoders)} end in the same name")
    wanted = []
    with tqdm(total=len(encoders) * len(options.unets), desc=NAME, unit="run") as bar:
        for label, (path, encoder) in encoders.items():
            for factor, narrow in zip(options.unets, widened(base, options.unets), strict=True):
                name = f"{label}-x{factor:g}"
                wanted.append(name)
                if results.get(name, {}).get("identity") != encoder.identity:
                    text = dataclasses.replace(base.text, encoder=path, width=encoder.width)
                    experiment = dataclasses.replace(narrow, text=text)
                    found = _train_and_judge(experiment, encoder, options, name=name)
                    results[name] = {"encoder": label, "factor": factor, **found}
                    write_results(options.out, NAME, settings, results)
                bar.update()
    _write({name: results[name] for name in wanted}, options)


def baseline(options: Options) -> config.Experiment:
    """The base stage of the config, trained for the number of steps of the options."""
    base = config.load(options.configs)[0]
    return dataclasses.replace(base, train=dataclasses.replace(base.train, steps=options.steps))


def widened(base: config.Experiment, factors: tuple[float, ...]) -> list[config.Experiment]:
    """The experiment with its U-Net's channels multiplied by each factor.

    Errors: ValueError for a width that the U-Net cannot have, or a base stage that is no UNet.
    """
    nets = [variants.widened(base.stage.model, factor) for factor in factors]
    stages = [dataclasses.replace(base.stage, model=net) for net in nets]
    return [dataclasses.replace(base, stage=stage) for stage in stages]


def _encoder(name: str, base: config.Experiment, options: Options) -> tuple[str, TextEncoder]:
    """Value of `config.Text.encoder`, and the encoder."""
    length = base.text.max_length
    if name == RANDOM:
        like = TextEncoder.load(LIKE, max_length=length)
        folder = options.workdir / NAME / "encoders" / f"{LIKE}_random_{options.seed}"
        name = str(random_encoder.write(folder, like, seed=options.seed))
    return name, TextEncoder.load(name, max_length=length)


def _train_and_judge(
    experiment: config.Experiment, encoder: TextEncoder, options: Options, *, name: str
) -> dict[str, Any]:
    workdir = options.workdir / NAME / name
    runs.train(
        experiment,
        workdir,
        data_dir=options.data_dir,
        encoder=encoder,
        examples=options.examples,
    )
    imagen = imagen_jax.load(workdir)
    exam = balanced_eval_set(
        experiment.data.dataset,
        count=options.images,
        seed=options.seed,
        size=experiment.stage.size,
    )
    judge = {"seed": options.seed, "batch_size": options.batch_size}
    return {
        "identity": encoder.identity,
        "text_width": encoder.width,
        "encoder_parameters": models.count_parameters(encoder.params),
        "channels": experiment.stage.model.channels,
        "unet_parameters": models.count_parameters(imagen.stages[0].device_params()),
        "step_seconds": runs.step_seconds(workdir),
        "noise_error": scoring.noise_error(imagen, exam, **judge),
        "scores": scoring.sample_and_score(imagen, exam, **judge),
    }


def _write(results: Mapping[str, Mapping[str, Any]], options: Options) -> None:
    page = Page(
        title="A larger text encoder against a larger U-Net",
        text=f"The base stage of `{options.configs}`, {options.steps} steps each on "
        f"{options.examples} captioned images, judged on {options.images} new captions, half "
        "with one object and half with two (percent right); the error is that of the noise "
        "prediction on held-out images, mean over logsnr -6 to 6. One seed.",
        rows=[_row(found) for found in results.values()],
        figure=plot(results),
    )
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def _row(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        "encoder": found["encoder"],
        "its width": str(found["text_width"]),
        "its parameters": f"{found['encoder_parameters'] / 1e6:.2f} M",
        "U-Net channels": str(found["channels"]),
        "its parameters ": f"{found['unet_parameters'] / 1e6:.2f} M",
        "ms/step": f"{1000 * found['step_seconds']:.0f}",
        "error": f"{found['noise_error']:.4f}",
        **scoring.attribute_cells(found["scores"]),
    }


def plot(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Alignment against U-Net size, one line an encoder, and the other way round."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    by_unet, by_encoder = figure.subplots(1, 2, sharey=True)
    rows = list(results.values())
    encoders = list(dict.fromkeys(row["encoder"] for row in rows))
    factors = list(dict.fromkeys(row["factor"] for row in rows))
    line = functools.partial(_line, rows)
    for number, encoder in enumerate(encoders):
        line(by_unet, {"encoder": encoder}, x="unet_parameters", colour=f"C{number}")
    for number, factor in enumerate(factors):
        line(by_encoder, {"factor": factor}, x="encoder", colour=f"C{number + 4}")
    by_unet.set(xlabel="parameters of the U-Net", ylabel="percent right", xscale="log")
    by_encoder.set(xlabel="text encoder")
    for axis in (by_unet, by_encoder):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.suptitle("solid: all attributes; dashed: colour", fontsize=9)
    return figure


def _line(rows, axis, where: Mapping[str, Any], *, x: str, colour: str) -> None:
    (key, value) = next(iter(where.items()))
    chosen = [row for row in rows if row[key] == value]
    label = value if key == "encoder" else f"U-Net x {value:g}"
    for attribute, style in (("all", "o-"), ("colour", "o--")):
        shares = [100 * row["scores"]["both"][attribute] for row in chosen]
        axis.plot(
            [row[x] for row in chosen],
            np.array(shares),
            style,
            color=colour,
            label=label if attribute == "all" else None,
        )


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
