"""A command's own options and every field of a config, in one parser: one --help shows both."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, TypeVar

import tyro

from imagen_jax import config
from imagen_jax.cli import parsing

Options = TypeVar("Options")


def parse(
    kind: type[Options],
    default: config.Experiment,
    arguments: Sequence[str],
    *,
    prog: str,
    description: str,
) -> tuple[Options, config.Experiment]:
    """Options of the dataclass `kind`, and `default` with the fields that were given."""

    @dataclasses.dataclass(frozen=True)
    class Everything:
        options: Annotated[kind, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        experiment: Annotated[config.Experiment, tyro.conf.arg(name="")] = default

    parsed = tyro.cli(
        Everything,
        args=arguments,
        prog=prog,
        description=description,
        config=(tyro.conf.AvoidSubcommands,),
    )
    return parsing.expand_paths(parsed.options), parsing.expand_paths(
        parsed.experiment, prefix="--"
    )
