"""Fields of diffusers' configs, read or refused by their names."""

from collections.abc import Collection, Mapping
from typing import Any

from imagen_jax.config.sentences import shorten

Fields = Mapping[str, Any]
LARGEST = 1e9  # of the numbers above 0


def whole_number(found: Fields, key: str, *, most: int = 2**31) -> int:
    """A number of things, at most so many. Errors: ValueError, as all of these."""
    value = found[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise unfit(key, value, [f"a whole number of {most:,} or less"])
    return value


def positive_number(found: Fields, key: str) -> float:
    """A number above 0."""
    value = found[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LARGEST:
        raise unfit(key, value, ["a number above 0"])
    return float(value)


def flag(found: Fields, key: str) -> bool:
    """True or false."""
    if not isinstance(found[key], bool):
        raise unfit(key, found[key], ["true", "false"])
    return found[key]


def choice(found: Fields, key: str, choices: Mapping[Any, Any]) -> Any:
    """Return what `choices` has for the value of a key."""
    value = found[key]
    if isinstance(value, bool | list | dict) or value not in choices:
        raise unfit(key, value, choices)
    return choices[value]


def unfit(key: str, value: Any, fitting: Collection[Any]) -> ValueError:
    """Make the refusal of a value, which names those that fit; the key is shown as it is given."""
    names = " or ".join(str(one) for one in fitting)
    return ValueError(
        f"{key} is {shorten(value)}, and imagen_jax has {names}: it is none of DeepFloyd IF's"
    )
