"""A command's own options and every field of a config, in one parser: one --help shows both."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, TypeVar

import tyro

from imagen_jax import config
from imagen_jax.cli import parsing

Options = TypeVar("Options")
RENAMED = {  # options of before, and the ones to give
    "--stage.diffusion.schedule": "--stage.diffusion.schedule.kind",
    "--stage.diffusion.logsnr-min": "--stage.diffusion.schedule.logsnr-min",
    "--stage.diffusion.logsnr-max": "--stage.diffusion.schedule.logsnr-max",
    "--stage.diffusion.shift": "--stage.diffusion.schedule.shift",
    "--stage.noise-conditioning.schedule": "--stage.noise-conditioning.schedule.kind",
}
# Options that a run writes into its config itself, and what says it.
NOTED = {
    "--teacher.folder": "--teacher of `imagen distill`",
    "--teacher.identity": "--teacher of `imagen distill`",
    "--lora.base": "--init-from",
    "--lora.identity": "--init-from",
    "--data.examples": "--pairs",
}


def parse(
    kind: type[Options],
    default: config.Experiment,
    arguments: Sequence[str],
    *,
    prog: str,
    description: str,
) -> tuple[Options, config.Experiment]:
    """Parse options of the dataclass `kind`, and fields of `default` that are overridden.

    Errors: ValueError for an option that has another name now, or would change nothing; else as
    `parsing.parse`.
    """
    for argument in arguments:
        option = argument.partition("=")[0].replace("_", "-")
        if option in RENAMED:
            raise ValueError(f"{option}: no such option; give {RENAMED[option]}")
        if option in NOTED:
            raise ValueError(
                f"{option} would change nothing: a run notes it itself; give {NOTED[option]}"
            )

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
        registry=parsing.NUMBERS,
    )
    return parsing.expand_paths(parsed.options), parsing.expand_paths(
        parsed.experiment, prefix="--"
    )
