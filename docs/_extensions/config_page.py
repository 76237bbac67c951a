"""The page of every config's fields: type, range, default and what the source says of them."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union

from docstrings import escaped
from field_comments import field_comments

from imagen_jax import config
from imagen_jax.config.ranges import Range, type_hints

INTRODUCTION = """# Configs

A config is a Python file whose `get_config()` returns an `Experiment`, as those in `configs/`. The
command line overrides each field by its path: `imagen train CONFIG --optim.learning-rate 3e-5`.
Bad values are refused by name when the config is made.
"""
OTHERS = (config.Framing, config.Filters, config.Processes)  # options of commands


def config_page() -> str:
    """A section for each dataclass, from `Experiment` down."""
    paths: dict[type, list[str]] = {}
    for kind, path in _walk(config.Experiment, ""):
        paths.setdefault(kind, []).append(path)
    sections = [_section(kind, list(dict.fromkeys(found))) for kind, found in paths.items()]
    sections += [_section(kind, []) for kind in OTHERS]
    return "\n".join([INTRODUCTION, *sections])


def _walk(kind: type, path: str) -> Iterator[tuple[type, str]]:
    yield kind, path
    for name, hint in type_hints(kind).items():
        for inner in _dataclasses(hint):
            yield from _walk(inner, f"{path}.{name}".lstrip("."))


def _dataclasses(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for inside in typing.get_args(hint):
        yield from _dataclasses(inside)


def _section(kind: type, paths: list[str]) -> str:
    said = inspect.cleandoc(kind.__doc__ or "")
    where = ", ".join(f"`{path}`" for path in paths if path)
    comments = field_comments(kind)
    lines = [f"## {kind.__name__}", "", escaped(said), ""]
    lines += [f"In an experiment: {where}.", ""] if where else []
    lines += ["| field | type | range | default | |", "|---|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        hint = type_hints(kind)[field.name]
        cells = [_type(hint), _range(hint), _default(field), escaped(comments[field.name])]
        lines.append(f"| `{field.name}` | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _type(hint: Any) -> str:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _type(inside[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_type, inside))
    if origin is Literal:
        return ", ".join(f"`{choice!r}`" for choice in inside)
    if origin is tuple:
        number = "several" if inside[-1] is Ellipsis else str(len(inside))
        return f"{number} {_type(inside[0])}"
    if dataclasses.is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return "`None`" if hint is type(None) else f"`{hint.__name__}`"


def _range(hint: Any) -> str:
    found = []
    for limits in _ranges(hint):
        found.append(str(limits).replace("of ", ""))
        found += [f"or {value:g}" for value in limits.also]
        found += ["or infinite"] if limits.infinite else []
        found += [limits.remedy] if limits.remedy else []
    return escaped(", ".join(filter(None, found)))


def _ranges(hint: Any) -> Iterator[Range]:
    for inside in typing.get_args(hint):
        if isinstance(inside, Range):
            yield inside
        else:
            yield from _ranges(inside)


def _default(field: dataclasses.Field) -> str:
    return "required" if field.default is dataclasses.MISSING else f"`{_shown(field.default)}`"


def _shown(value: Any) -> str:
    """A value as it is written; of a dataclass the fields that are not at their defaults."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    given = [
        f"{field.name}={_shown(getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    ]
    return f"{type(value).__name__}({', '.join(given)})"
