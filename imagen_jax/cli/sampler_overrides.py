"""Sampler options for all stages or for some: `64`, `sr256=20` or `64,sr256=20`."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from imagen_jax import config


def _interval(text: str) -> tuple[float, float]:
    low, high = text.split(":")
    return float(low), float(high)


def _choice(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return read


OPTIONS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    # option: field of `config.Sampler` or "aug_level", how it is read, what it has to be
    "guidance_weight": ("guidance_weight", float, "a number"),
    "guidance_interval": ("guidance_interval", _interval, "LOW:HIGH, such as 0.2:5"),
    "guidance_rescale": ("guidance_rescale", float, "a number from 0 to 1"),
    "steps": ("steps", int, "a whole number"),
    "sampler": (
        "kind",
        _choice(get_args(config.SamplerKind)),
        f"one of {', '.join(get_args(config.SamplerKind))}",
    ),
    "spacing": (
        "spacing",
        _choice(get_args(config.Spacing)),
        f"one of {', '.join(get_args(config.Spacing))}",
    ),
    "threshold": (
        "threshold",
        _choice(get_args(config.Threshold)),
        f"one of {', '.join(get_args(config.Threshold))}",
    ),
    "percentile": ("percentile", float, "percent, such as 99.5"),
    "aug_level": ("aug_level", float, "a number from 0 to 1"),
}


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


FLAGS = {name: _flag(option) for option, (name, _, _) in OPTIONS.items()}


def read_overrides(given: Mapping[str, str | None]) -> list[tuple[str | None, dict[str, Any]]]:
    """What to change, as `Imagen.with_samplers` takes it: (stage or None for all, changes).

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
                raise ValueError(f"{_flag(option)} {text!r}: two values for {whose}: give one")
            stages.add(stage)
            found.append((stage, {OPTIONS[option][0]: _value(option, value)}))
    return sorted(found, key=lambda change: change[0] is not None)


def _value(option: str, text: str) -> Any:
    _, reader, wanted = OPTIONS[option]
    try:
        return reader(text)
    except ValueError:
        raise ValueError(
            f"{_flag(option)} {text!r}: wanted {wanted}; of one stage NAME=VALUE, of several "
            "separated by commas"
        ) from None
