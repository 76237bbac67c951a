"""Sampler options for all stages or for some: `64`, `sr256=20` or `64,sr256=20`.

There is one for each field of `config.Sampler`, and one for the level of noise augmentation.
"""

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from imagen_jax import config
from imagen_jax.config.digits import parse_real, parse_whole
from imagen_jax.config.sentences import shorten
from imagen_jax.pretrained.deepfloyd import time_steps


class SamplerOption(NamedTuple):
    """One option and its reader."""

    field: str  # of `config.Sampler`, or "aug_level"
    read: Callable[[str], Any]  # Errors: ValueError
    wanted: str  # what it has to be


def _interval(text: str) -> tuple[float, float]:
    low, high = text.split(":")
    return parse_real(low), parse_real(high)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _option(field: str, hint: Any) -> SamplerOption:
    """The option of a field, by the kind of value that it holds."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        # Its place says whether a text is one of them, or raises.
        return SamplerOption(
            field, lambda text: choices[choices.index(text)], f"one of {', '.join(choices)}"
        )
    if field == "timesteps":
        wanted = f"999:600:0, or one of {', '.join(time_steps.PRESETS)}"
        return SamplerOption(field, time_steps.parse_list, wanted)
    if hint is bool:
        return SamplerOption(field, _truth, "true or false")
    if typing.get_origin(hint) is tuple:
        return SamplerOption(field, _interval, "LOW:HIGH, such as 0.2:5")
    read, wanted = {int: (parse_whole, "a whole number"), float: (parse_real, "a number")}[hint]
    return SamplerOption(field, read, wanted)


OPTIONS: Mapping[str, SamplerOption] = {
    "sampler" if field == "kind" else field: _option(field, hint)
    for field, hint in {**typing.get_type_hints(config.Sampler), "aug_level": float}.items()
}


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


FLAGS = {entry.field: _flag(option) for option, entry in OPTIONS.items()}


def read_overrides(given: Mapping[str, str | None]) -> list[tuple[str | None, dict[str, Any]]]:
    """Read the changes as `Imagen.with_samplers` takes them: (stage or None for all, changes).

    Those for all stages come first. Errors: ValueError that names option and value.
    """
    found: list[tuple[str | None, dict[str, Any]]] = []
    for option, text in given.items():
        stages: set[str | None] = set()
        for part in () if text is None else text.split(","):
            name, separator, value = part.rpartition("=")
            stage = name if separator else None
            if stage in stages:
                whose = "all stages" if stage is None else stage
                raise ValueError(
                    f"{_flag(option)} {shorten(text)}: two values for {whose}: give one"
                )
            stages.add(stage)
            found.append((stage, {OPTIONS[option].field: _value(option, value)}))
    return sorted(found, key=lambda change: change[0] is not None)


def _value(option: str, text: str) -> Any:
    try:
        return OPTIONS[option].read(text)
    except ValueError:
        raise ValueError(
            f"{_flag(option)} {shorten(text)}: wanted {OPTIONS[option].wanted}; of one stage "
            "NAME=VALUE, of several separated by commas"
        ) from None
