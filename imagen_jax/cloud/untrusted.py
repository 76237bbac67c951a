"""JSON that others wrote to the bucket: bounded, of known keys and kinds, and fit to print."""

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from imagen_jax.config import check_value
from imagen_jax.config.names import TURNS
from imagen_jax.config.ranges import type_hints
from imagen_jax.io import json_reader

MAX_TEXT = 1 << 20  # bytes of a record or a report
_CONTROLS = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029{TURNS}]")
Made = TypeVar("Made")


def parse_json(text: str) -> Any:
    """Parse a text. Errors: ValueError for one that is too long, nested too deeply, no JSON,
    or has a key twice."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"it has more than {MAX_TEXT:,} bytes")
    if json_reader.is_deeper(text):
        raise ValueError("it is nested too deeply")
    return json.loads(
        text, parse_constant=_refuse_constant, object_pairs_hook=json_reader.make_fields
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def fill(kind: Callable[..., Made], fields: Any, name: str) -> Made:
    """Make a dataclass of an object of JSON, whose lists become tuples.

    Errors: ValueError for something else, for unknown keys, for those that are missing, and for
    values that their annotations exclude.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"{name}: must be an object")
    known = {f.name: f.default for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"{name}: unknown key {unknown[0][:80]!r}")
    needed = {n for n, default in known.items() if default is dataclasses.MISSING}
    if missing := sorted(needed - set(fields)):
        raise ValueError(f"{name}: no {missing[0]}")
    hints = type_hints(kind)
    return kind(**{n: check_value(value, hints[n], f"{name}.{n}") for n, value in fields.items()})


def make_printable(instance: Any, *names: str) -> None:
    """Spell out what is not printable in fields of a frozen dataclass that are text."""
    for name in names:
        value = getattr(instance, name)
        if isinstance(value, str):
            object.__setattr__(instance, name, spell_unprintable(value))


def spell_unprintable(text: str) -> str:
    """Spell out what is not printable in a text that is part of a line."""
    return "".join(c if c.isprintable() else _spell(c) for c in text)


def spell_controls(log: str) -> str:
    """A log whose control characters, which a terminal would obey, are spelled out.

    Ends of lines and tabs stay, and the returns with which progress is written.
    """
    return _CONTROLS.sub(lambda found: _spell(found[0]), log)


def _spell(character: str) -> str:
    return character.encode("unicode_escape").decode()
