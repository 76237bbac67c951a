"""Options as they are typed, with every place among them as `paths` reads it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from imagen_jax import config
from imagen_jax.config.digits import parse_real, parse_whole
from imagen_jax.io import paths

Options = TypeVar("Options")
# Options that are a folder here or in a bucket, or a name.
PLACES = frozenset(
    {"workdir", "cascade", "init_from", "encoder", "text_encoder", "tokenizer", "folder", "pairs"}
    | {"out"}
)
POSITIONAL = frozenset({"cascade", "folder"})


NUMBERS = tyro.constructors.ConstructorRegistry()
_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("INT", parse_whole),
    float: ("FLOAT", parse_real),
}


@NUMBERS.primitive_rule
def _number(
    found: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """How an option that is a number is read: of ASCII digits alone."""
    kind = found.type
    if kind not in _READERS:
        return None
    metavar, read = _READERS[kind]
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: type(value) is kind or (kind is float and type(value) is int),
        str_from_instance=lambda value: [str(value)],
    )


def parse(kind: type[Options], arguments: Sequence[str], *, prog: str, description: str) -> Options:
    """Options of the dataclass `kind`.

    Errors: SystemExit for a wrong option; ValueError for a number that is out of its range or a
    place that can't be one, by its option.
    """
    options = tyro.cli(kind, args=arguments, prog=prog, description=description, registry=NUMBERS)
    config.check_options(options)
    return expand_paths(options)


def refuse_renamed(arguments: Sequence[str], renamed: Mapping[str, str]) -> None:
    """Errors: ValueError for an option of `renamed`, with the name that it has now."""
    for argument in arguments:
        old = argument.partition("=")[0].replace("_", "-")
        if old in renamed:
            raise ValueError(f"{old} is {renamed[old]} now")


def expand_paths(options: Options, *, prefix: str = "") -> Options:
    """The same with `~` expanded in each place.

    Options of a part of them begin with its name where there is a `prefix`, which is its own.
    Errors: ValueError as `parse`.
    """
    assert dataclasses.is_dataclass(options)
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        found = _placed(field.name, value, prefix)
        if found is not value:
            changed[field.name] = found
    if not changed:
        return options
    return dataclasses.replace(options, **changed)  # type: ignore[type-var]  # see the assertion


def _placed(name: str, value: Any, prefix: str) -> Any:
    if dataclasses.is_dataclass(value):
        return expand_paths(value, prefix=f"{prefix}{name}." if prefix else "")
    if not isinstance(value, Path) and not (isinstance(value, str) and value and name in PLACES):
        return value
    try:
        found = paths.local_path(value) if isinstance(value, Path) else paths.path_or_address(value)
    except ValueError as error:
        option = "" if name in POSITIONAL else f"{prefix or '--'}{name.replace('_', '-')} "
        raise ValueError(f"{option}{error}") from None
    return value if str(found) == str(value) else found
