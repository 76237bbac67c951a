"""The rows of the recipe: variants of a base stage, each the fields it changes and to what.

A value may be computed from the stage that is varied, so that the table holds for any config.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from typing import Any

from imagen_jax import config

BASELINE = "baseline"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row: a name such as `predicts=eps`, and the fields of `Experiment` that it sets.

    Fields are dotted; a value may be a function of the field's value in the baseline.
    """

    name: str
    changes: tuple[tuple[str, Any], ...] = ()
    plain: float | None = None  # judge captions with this share in plain wording; None: as trained

    def apply(self, experiment: config.Experiment) -> config.Experiment:
        """The experiment with the fields set. Errors: ValueError for a value that does not fit."""
        for field, value in self.changes:
            experiment = _set(experiment, field.split("."), value)
        return experiment


def widened(model: config.UNet | config.EfficientUNet, factor: float) -> config.UNet:
    """The U-Net with its channels multiplied; heads become narrower where they no longer fit.

    Errors: ValueError for a width that the U-Net cannot have, or a network that is no UNet.
    """
    if not isinstance(model, config.UNet):
        raise ValueError(f"only a UNet can be widened, not a {type(model).__name__}")
    channels = round(model.channels * factor)
    widths = [channels * model.channel_mult[level] for level in model.attention_levels()]
    head_channels = math.gcd(model.head_channels, *widths)
    return dataclasses.replace(model, channels=channels, head_channels=head_channels)


def _set(tree: Any, path: list[str], value: Any) -> Any:
    """A copy of nested dataclasses with the field at `path` set."""
    before = getattr(tree, path[0])
    if len(path) > 1:
        value = _set(before, path[1:], value)
    elif callable(value):
        value = value(before)
    return dataclasses.replace(tree, **{path[0]: value})


def _times(factor: float) -> Callable[[int | float], int | float]:
    def scaled(before: int | float) -> int | float:
        return type(before)(before * factor)  # a whole number stays one

    return scaled


def _each(name: str, field: str, values: tuple[Any, ...]) -> list[Variant]:
    return [Variant(f"{name}={value}", ((field, value),)) for value in values]


def _scaled(name: str, field: str, factors: tuple[float, ...]) -> list[Variant]:
    return [Variant(f"{name}=x{factor:g}", ((field, _times(factor)),)) for factor in factors]


def _widths(factors: tuple[float, ...]) -> list[Variant]:
    return [
        Variant(f"channels=x{f:g}", (("stage.model", functools.partial(widened, factor=f)),))
        for f in factors
    ]


def _optimisers() -> list[Variant]:
    """Each at the config's learning rate; and the ones that want a lower one than Muon, at it."""
    kinds = typing.get_args(typing.get_type_hints(config.Optim)["kind"])
    slower = (("optim.learning_rate", _times(0.5)),)
    return [
        *_each("optimiser", "optim.kind", kinds),
        *(
            Variant(f"optimiser={kind},x0.5", (("optim.kind", kind), *slower))
            for kind in kinds
            if kind != "muon"
        ),
    ]


@functools.cache
def table() -> tuple[Variant, ...]:
    """Every row, the baseline first; names are unique."""
    return (
        Variant(BASELINE),
        *_each("predicts", "stage.diffusion.predicts", typing.get_args(config.Predicts)),
        *_each("shift", "stage.diffusion.schedule.shift", (-2.0, -1.0, 0.0, 1.0, 2.0)),
        *_each("loss_weight", "stage.diffusion.loss_weight", ("plain", "min_snr", "sigmoid")),
        *_widths((0.5, 1.5, 2.0)),
        *_scaled("batch", "train.batch_size", (0.5, 2.0)),
        *_scaled("learning_rate", "optim.learning_rate", (0.25, 0.5, 2.0)),
        *_each("ema_decay", "optim.ema_decay", (0.9, 0.99, 0.999)),
        *_optimisers(),
        Variant("text=pooled_only", (("stage.model.text.kv", "none"),)),
        Variant("text=attention_only", (("stage.model.text.pool", "none"),)),
        Variant("text=cross", (("stage.model.text.kv", "cross"),)),
        Variant("text=concat", (("stage.model.text.kv", "concat"),)),
        Variant("positions=none", (("stage.model.text.positions", 0),)),
        *_each("refiner_layers", "stage.model.text.refiner_layers", (0, 1, 2)),
        *_each("text_drop_rate", "stage.text_drop_rate", (0.0, 0.1, 0.2)),
        *_each("guidance", "stage.sampler.guidance_weight", (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)),
        *_each("sampler", "stage.sampler.kind", typing.get_args(config.SamplerKind)),
        *_each("sampling_steps", "stage.sampler.steps", (4, 8, 16, 32, 64, 128)),
        *_each("threshold", "stage.sampler.threshold", typing.get_args(config.Threshold)),
        Variant("wording=plain", plain=1.0),
        Variant("wording=free", plain=0.0),
    )


def choose(only: tuple[str, ...]) -> list[Variant]:
    """The rows of these names (`predicts=eps`) or kinds (`predicts`: all of them); all if none.

    Errors: ValueError for a name that no row has.
    """
    rows = table()
    kinds = list(dict.fromkeys(row.name.partition("=")[0] for row in rows))
    if unknown := [n for n in only if n not in {row.name for row in rows} and n not in kinds]:
        raise ValueError(
            f"--only {unknown[0]}: no such variant; there are {', '.join(kinds)}, and rows such as "
            f"{', '.join(row.name for row in rows[1:4])}"
        )
    wanted = {*only}
    return [
        row
        for row in rows
        if not only or row.name in wanted or row.name.partition("=")[0] in wanted
    ]
