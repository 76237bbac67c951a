"""Whether a store fits an experiment: its text encoder and the sides of its images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from imagen_jax import config
from imagen_jax.data.store.store import Store

# Of `config.Text`, and of a store.
STORED = ("width", "max_length", "clean", "clean_caption", "lower_case", "padding")


def check_store(
    store: Store, *, experiment: config.Experiment, command: str = "imagen encode"
) -> None:
    """Refuse a store that the experiment cannot train on.

    `command` is the one that makes the store it needs, for errors to name.
    Errors: ValueError naming what differs and the remedy.
    """
    if misfit := describe_misfit(store, experiment, command):
        raise ValueError(f"{store.folder} {misfit}")
    if not store.empty().is_finite():
        raise nonfinite_encoding(store, "the empty caption", command)


def describe_misfit(store: Store, experiment: config.Experiment, command: str) -> str:
    """Describe why an experiment can't train on a store, with the remedy, as the end of a sentence.

    `command` makes the store that it needs. "" if it can, as far as the store's index tells.
    """
    text, stage = experiment.text, experiment.stage
    wanted = {name: getattr(text, name) for name in STORED}
    # Those that the config leaves open may be any; a run keeps its first store's.
    checked = ("identity", "vocabulary", "dtype")
    wanted |= {name: getattr(text, name) for name in checked if getattr(text, name)}
    for name, asked in ({"encoder": Path(text.encoder).name} | wanted).items():
        found = store.computed_in if name == "dtype" else getattr(store, name)
        if found != asked:
            return (
                f"was encoded with {name} {found!r}, but text.{name}={asked!r}: "
                f"change the config, or delete that folder and encode for it: `{command}`"
            )
    if stage.size not in store.sizes:
        return (
            f"holds images of sides {list(store.sizes)}, but stage {stage.name} "
            f"trains on {stage.size}: delete that folder and encode for it: `{command}`"
        )
    return ""


def nonfinite_encoding(store: Store, which: str, command: str = "imagen encode") -> ValueError:
    """The error for an encoding in a store that is not finite; `which` names its caption."""
    return ValueError(
        f"{store.folder}: the encoding of {which} is NaN or infinite, as text encoder "
        f"{store.encoder!r} computed it: delete the folder, then `{command}` with sound "
        "weights or in float32"
    )


def with_store(experiment: config.Experiment, store: Store) -> config.Experiment:
    """The experiment with what the store notes: its encoder's digests and dtype, its examples."""
    text = dataclasses.replace(
        experiment.text,
        identity=store.identity,
        vocabulary=store.vocabulary,
        dtype=store.computed_in,  # type: ignore[arg-type]  # `config.Text` checks it
    )
    data = dataclasses.replace(experiment.data, examples=store.count)
    return dataclasses.replace(experiment, text=text, data=data)
