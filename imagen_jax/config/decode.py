"""Parsed JSON to what a type says: dataclasses, named tuples, lists and plain values, by name."""

import collections.abc
import contextlib
import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from imagen_jax.config.diffusion import Diffusion, NoiseConditioning
from imagen_jax.config.names import check_name
from imagen_jax.config.sentences import shorten

# Fields of a noise schedule by their names in configs that have them flat beside the others.
FLAT_SCHEDULE = {
    "schedule": "kind",
    "logsnr_min": "logsnr_min",
    "logsnr_max": "logsnr_max",
    "shift": "shift",
}


def decode(hint: Any, value: Any, where: str) -> Any:
    """Turn parsed JSON into `hint`.

    Errors: ValueError for what does not fit, with its place, which `where` begins.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, where)
    if origin is collections.abc.Callable and isinstance(value, dict):
        return _decode_function(value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list, got {shorten(value)}")
        return tuple(decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is collections.abc.Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected fields, got {shorten(value)}")
        return {k: decode(args[1], v, f"{where}[{shorten(k)}]") for k, v in value.items()}
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"{where}: {shorten(value)} is none of {list(args)}")
        return value
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_field_defaults"):
        return _decode_fields(hint, value, where)
    return _decode_plain(hint, value, where)


def _decode_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) is int:
        with contextlib.suppress(OverflowError):
            return float(value)
    if type(value) is not hint:
        kind = getattr(hint, "__name__", hint)
        raise ValueError(f"{where}: expected {kind}, got {shorten(value)}")
    return value


def _decode_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    kinds = [o for o in options if o is not type(None)]
    if isinstance(value, dict) and ("_type" in value or len(kinds) > 1):
        kinds = [k for k in kinds if k.__name__ == value.get("_type")]
        if not kinds:
            raise ValueError(f"{where}: unknown type {shorten(value.get('_type'))}")
    return decode(kinds[0], value, where)


def _decode_fields(kind: Any, value: Any, where: str) -> Any:
    """Make a dataclass or a named tuple of an object's fields."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected the fields of {_called(kind)}, got {shorten(value)}")
    given = _renamed(kind, {k: v for k, v in value.items() if k != "_type"})
    return kind(**decode_values(kind, given, where))


def decode_values(
    kind: Any, given: dict[str, Any], where: str, *, without: Collection[str] = ()
) -> dict[str, Any]:
    """Turn an object's fields into those of a dataclass or a named tuple.

    Fields in `without` don't come from the object. Errors: as `decode`, and for a key that is
    unknown, or missing without a default.
    """
    hints = {k: v for k, v in _hints(kind).items() if k not in without}
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise ValueError(
            f"{where}: unknown key {shorten(unknown[0])}; {_called(kind)} has {sorted(hints)}"
        )
    # An option that a run is older than has the default, which is what the run did.
    missing = sorted(set(hints) - set(given) - _optional(kind))
    if missing:
        raise ValueError(f"{where}: missing key {missing[0]!r} of {_called(kind)}")
    return {k: decode(hints[k], v, f"{where}.{k}") for k, v in given.items()}


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    """Return the types of a class's fields: Python evaluates annotations at each question."""
    return typing.get_type_hints(kind)


def _called(kind: Any) -> str:
    """Name a class for people."""
    return kind.__name__.lstrip("_")


def _optional(kind: Any) -> set[str]:
    """Return the fields that have a default."""
    if not dataclasses.is_dataclass(kind):
        return set(kind._field_defaults)
    return {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
    }


def _renamed(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Bring fields as stored runs spell them to the names of today: the one place that does."""
    if kind not in (Diffusion, NoiseConditioning) or isinstance(given.get("schedule"), dict):
        return given
    flat = {new: given.pop(old) for old, new in FLAT_SCHEDULE.items() if old in given}
    return given | ({"schedule": {"_type": "NoiseSchedule", **flat}} if flat else {})


def _decode_function(value: Any, where: str) -> Any:
    """Find a function that this process has imported: to read a config runs no code."""
    module, name = (value.get(key) for key in ("module", "name"))
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError(f"{where}: {shorten(value)} names no function by its module and name")
    for part in (module, name):
        check_name(part, f"{where}: a part of the function's name")
    found = find_function(module, name)
    if found is None:
        raise ValueError(
            f"{where}: the run has a function of its own, {module}.{name}: import {module}, which "
            "defines it, before reading the run"
        )
    return found


def find_function(module: str, name: str) -> Any:
    """Return the function that an imported module defines under a name; None without one.

    Python's own modules don't count: a stranger's config names none of them.
    """
    if module.partition(".")[0] in sys.stdlib_module_names:
        return None
    found = getattr(sys.modules.get(module), name, None)
    own = isinstance(found, types.FunctionType) and found.__module__ == module
    return found if own else None
