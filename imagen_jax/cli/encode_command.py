"""The `imagen encode` command that makes the pairs of a training run, for sentences to name."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from imagen_jax import config
from imagen_jax.cli import absolute_paths
from imagen_jax.cli.experiments import load_experiments
from imagen_jax.data.prepare import encode
from imagen_jax.data.store import store
from imagen_jax.io.workdir import Workdir


def describe_command(
    name: str, experiment: config.Experiment, *, data_dir: Path, pairs: Workdir | None
) -> str:
    """Return the command that encodes what `experiment`, of the config `name`, trains on.

    Options that the run overrides are spelled out. A folder of pairs that is there says what it is
    of; else the experiment's dataset does.
    """
    own = [absolute_paths.resolve_text(stage) for stage in load_experiments(name)]
    data = experiment.data
    dirs = [] if data_dir == Path("data") else ["--data-dir", str(data_dir)]
    changes = _changes(experiment, own)
    if pairs is None and not changes and any(data == stage.data for stage in own):
        return shlex.join(["imagen", "encode", name, *dirs])
    folder = pairs or encode.store_path(
        data_dir, dataset=data.dataset, split=data.split, encoder=experiment.text.encoder
    )
    source = store.describe_source(folder) or store.join_split(data.dataset, data.split)
    command = ["imagen", "encode", source, "--for", name, *changes, "--out", str(folder), *dirs]
    return shlex.join(command)


def _changes(experiment: config.Experiment, own: Sequence[config.Experiment]) -> list[str]:
    """Options of `imagen encode` for what a run has otherwise than its config."""
    text, given = experiment.text, own[0].text
    options: list[str] = []
    for field in ("encoder", "tokenizer", "max_length", "dtype"):
        if getattr(text, field) != getattr(given, field):
            options += [f"--{field.replace('_', '-')}", str(getattr(text, field))]
    for flag in ("clean", "clean_caption"):
        if getattr(text, flag) and not getattr(given, flag):
            options.append(f"--{flag.replace('_', '-')}")
    sizes = {stage.stage.size for stage in own}
    if experiment.stage.size not in sizes:
        options += ["--sizes", str(experiment.stage.size)]
    return options
