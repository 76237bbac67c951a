"""Resume a run with another config: some changes are refused, the others are reported."""

import dataclasses
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax import config
from imagen_jax.config.sentences import join_clauses
from imagen_jax.io import run_dir
from imagen_jax.io.workdir import Workdir
from imagen_jax.train import optim

PLACES = ("encoder", "tokenizer", "base", "folder")  # among these options
UNKNOWN = ""  # a digest of the text encoder in the config of a run from before they were kept
# Besides the optimiser's, what a run's weights depend on.
REPORTED = {"data": ("dataset", "split", "examples"), "train": ("steps", "batch_size", "seed")}


def changed_options(workdir: Workdir, experiment: config.Experiment) -> list[str]:
    """List the options that change how the run in `workdir` continues, each with both values.

    Errors: ValueError where it is another model's run, or its optimiser has another state.
    """
    if not (workdir / run_dir.CONFIG).is_file():
        return []
    before = run_dir.read_config(workdir)
    _refuse_other_model(workdir, before, experiment)
    if not _is_begun(workdir):
        return []
    names = {"optim": [f.name for f in dataclasses.fields(config.Optim)], **REPORTED}
    changed = {
        f"{part}.{name}": f"{new!r} instead of {old!r}"
        for part in names
        for name in names[part]
        for old, new in [_values(part, name, before, experiment)]
        if old != new and not (name == "examples" and 0 in (old, new))
    }
    stateful = ("optim.kind", "optim.clip_norm", "optim.frozen")
    if _state(before) != _state(experiment) or "optim.frozen" in changed:
        reasons = (f"{n}={changed[n]}" for n in stateful if n in changed)
        raise ValueError(
            f"{workdir}: the state of the optimiser there does not fit: {', '.join(reasons)}; "
            f"restore the option, or begin another run with --init-from {workdir}"
        )
    if "train.steps" in changed:
        if experiment.optim.schedule == "constant":
            del changed["train.steps"]
        else:
            changed["train.steps"] += ", which optim.schedule is over"
    return [f"{name}={values}" for name, values in changed.items()]


def refuse_other_run(workdir: Workdir, experiment: config.Experiment) -> None:
    """Refuse a folder of another run, before anything is computed.

    The weights that adapters change, and a teacher's, are compared by `changed_options`, when they
    have been read.
    Errors: ValueError, as `changed_options`.
    """
    if not (workdir / run_dir.CONFIG).is_file():
        return
    before = run_dir.read_config(workdir)
    adapters = dataclasses.replace(experiment.lora, identity=before.lora.identity)
    teacher = dataclasses.replace(experiment.teacher, identity=before.teacher.identity)
    changed_options(workdir, dataclasses.replace(experiment, lora=adapters, teacher=teacher))


def _refuse_other_model(
    workdir: Workdir, before: config.Experiment, experiment: config.Experiment
) -> None:
    """Refuse a folder that holds another model's run."""
    changed = [
        f"{part}.{f.name}: {old!r} there, {new!r} here"
        for part in ("stage", "text", "lora", "teacher")
        for f in dataclasses.fields(getattr(experiment, part))
        for old, new in [_values(part, f.name, before, experiment)]
        if f.name != "sampler" and old not in (new, UNKNOWN)
        if not (f.name in PLACES and _is_same_place(old, new))
    ]
    if changed:
        dtype = any(change.startswith("text.dtype") for change in changed)
        raise ValueError(
            f"{workdir} holds a run with another config: {join_clauses(changed)}; "
            "give another --workdir or restore the config"
            + f"; if the run has always read this dataset, correct its {run_dir.CONFIG}"
            * dtype
        )


def _is_same_place(old: str, new: str) -> bool:
    """Tell whether a path as an older run has it, relative to wherever it began, may be `new`.

    Digests tell whether what is there is the same.
    """
    parts = [part for part in PurePath(old).parts if part != ".."]
    return not PurePath(old).is_absolute() and list(PurePath(new).parts[-len(parts) :]) == parts


def _values(
    part: str, name: str, before: config.Experiment, after: config.Experiment
) -> tuple[Any, Any]:
    return getattr(getattr(before, part), name), getattr(getattr(after, part), name)


def _is_begun(workdir: Workdir) -> bool:
    """Tell whether there is a checkpoint to resume from."""
    folder = workdir / run_dir.CHECKPOINTS
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return any(name.isascii() and name.isdigit() for name in names)


def _state(experiment: config.Experiment) -> Any:
    """Return the structure of the optimiser's state, for a matrix and a vector."""
    options = dataclasses.replace(experiment.optim, frozen=())  # which have none
    rule = optim.build(options, steps=experiment.train.steps)
    params = {"kernel": jnp.zeros((256, 256)), "bias": jnp.zeros(3)}
    return jax.tree.structure(jax.eval_shape(rule.init, params))
