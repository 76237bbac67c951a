"""Ranges of fields, given in their annotations and checked when a dataclass is made.

A number has a `Range` in its annotation, such as `steps: Count`; numbers are finite in float32,
which networks compute in. A list becomes a tuple, and a NumPy number a Python one.
"""

import collections.abc
import dataclasses
import functools
import math
import numbers
import struct
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

LARGEST_INT = 2**31 - 1  # of int32, in which devices count
SMALLEST_FLOAT = 2.0**-126  # of float32; devices take smaller ones for 0
LARGEST_FLOAT = (2.0 - 2.0**-23) * 2.0**127
SHOWN_BITS = 128  # of a whole number in a sentence


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, or between `above` and `below`, and those in `also`."""

    low: float | int | None = None
    high: float | int | None = None
    above: float | int | None = None
    below: float | int | None = None
    also: tuple[float | int, ...] = ()
    remedy: str = ""  # what else to give
    infinite: bool = False  # infinity has a meaning

    def __contains__(self, value: float | int) -> bool:
        return value in self.also or (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Continue a sentence after "a number"."""
        ends = [f"above {self.above:g}"] if self.above is not None else []
        if self.low is not None and self.high is not None:
            ends = [f"from {self.low:g} to {_plain(self.high)}"]
        elif self.low is not None:
            ends = [f"of {self.low:g} or more"]
        elif self.high is not None:
            ends += [f"of {_plain(self.high)} or less"]
        ends += [f"below {self.below:g}"] if self.below is not None else []
        return " and ".join(ends)


Count = Annotated[int, Range(low=1)]
Counts = Annotated[tuple[int, ...], Range(low=1)]
Whole = Annotated[int, Range(low=0)]
# Numbers by which memory, time or processes are asked for end far above what anybody needs, so that
# a stranger's file, or a slip of the hand, is refused before any of it is spent.
Side = Annotated[int, Range(low=1, high=2**14)]  # pixels
Sides = Annotated[tuple[int, ...], Range(low=1, high=2**14)]
Width = Annotated[int, Range(low=1, high=2**16)]  # channels, and what divides them
Factor = Annotated[int, Range(low=1, high=2**10)]  # by which they are multiplied
Factors = Annotated[tuple[int, ...], Range(low=1, high=2**10)]
Length = Annotated[int, Range(low=1, high=2**16)]  # tokens
BatchSize = Annotated[int, Range(low=1, high=2**20)]
Images = Annotated[int, Range(low=1, high=10**6)]  # of one call, which keeps a line on each
Steps = Annotated[int, Range(low=1, high=10**5)]  # of a sampler
StepsOrNone = Annotated[int, Range(low=0, high=10**5)]  # 0 where there is no number of them
TeacherSteps = Annotated[int, Range(low=2, high=64)]  # calls of a network in one program
Pixels = Annotated[int, Range(low=1, high=2**28)]  # of one image
Parallel = Annotated[int, Range(low=1, high=2**16)]  # processes, machines or devices
Workers = Annotated[int, Range(low=1, high=2**10)]  # processes or threads of one machine
Seed = Annotated[int, Range(low=0, high=2**32 - 1)]
Share = Annotated[float, Range(low=0, high=1)]
ShareBelowOne = Annotated[float, Range(low=0, below=1)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(low=0)]
Finite = Annotated[float, Range()]


class MisfitError(ValueError):
    """A value that its annotation excludes; the message is what it has to be."""


def check_fields(instance: Any, where: str) -> None:
    """Check all fields of a config, for its `__post_init__`.

    Errors: ValueError that names the field, its value and what it has to be.
    """
    _check(instance, lambda name, value: f"{where}: {name}={value}")


def check_options(instance: Any) -> None:
    """Check options of the command line, as `check_fields` does fields."""
    _check(instance, lambda name, value: f"--{name.replace('_', '-')} {value}")


def check_value(value: Any, hint: Any, name: str) -> Any:
    """Check one argument against `hint`. Errors: as `check_fields`."""
    try:
        return fit_value(hint, value)
    except MisfitError as misfit:
        raise ValueError(f"{name}={format_value(value)}: must be {misfit}") from None


def _check(instance: Any, said: Callable[[str, str], str]) -> None:
    kind: Any = type(instance)
    for name, hint in type_hints(kind).items():
        value = getattr(instance, name)
        try:
            fit = fit_value(hint, value)
        except MisfitError as misfit:
            raise ValueError(f"{said(name, format_value(value))}: must be {misfit}") from None
        if fit is not value:
            object.__setattr__(instance, name, fit)


@functools.cache
def type_hints(kind: Any) -> dict[str, Any]:
    """The annotations of a dataclass's fields, ranges included."""
    found = typing.get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def fit_value(hint: Any, value: Any, limits: Range | None = None) -> Any:
    """Convert a value to the annotated kind. Errors: MisfitError for another kind or range."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        given = [extra for extra in inside[1:] if isinstance(extra, Range)]
        return fit_value(inside[0], value, given[0] if given else limits)
    if origin in (typing.Union, types.UnionType):
        return _one_of(inside, value, limits)
    if origin is tuple:
        return _tuple(inside, value, limits)
    if origin is typing.Literal:
        if not any(type(value) is type(choice) and value == choice for choice in inside):
            raise MisfitError(f"one of {', '.join(map(repr, inside))}")
        return value
    if origin is collections.abc.Callable and not callable(value):
        raise MisfitError("a function")
    if hint in (int, float):
        return _number(hint, value, limits)
    if hint is type(None) and value is not None:
        raise MisfitError("None")
    known = hint in (str, bool) or dataclasses.is_dataclass(hint)
    if known and not isinstance(value, hint):
        raise MisfitError({str: "a string", bool: "True or False"}.get(hint, hint.__name__))
    return value


def _one_of(options: tuple[Any, ...], value: Any, limits: Range | None) -> Any:
    wanted = []
    for option in sorted(options, key=lambda option: option is not type(None)):
        try:
            return fit_value(option, value, limits)
        except MisfitError as misfit:
            wanted.append(str(misfit))
    raise MisfitError(" or ".join(wanted))


def _tuple(inside: tuple[Any, ...], value: Any, limits: Range | None) -> tuple[Any, ...]:
    endless = inside[-1] is Ellipsis
    try:
        if isinstance(value, tuple | list) and (endless or len(value) == len(inside)):
            kinds = inside[:1] * len(value) if endless else inside
            fit = tuple(fit_value(k, v, limits) for k, v in zip(kinds, value, strict=True))
            same = isinstance(value, tuple) and all(map(lambda a, b: a is b, fit, value))
            return tuple(value) if same else fit  # itself, of a tuple
    except MisfitError as misfit:
        raise MisfitError(f"several values, each {misfit}") from None
    raise MisfitError("several values" if endless else f"{len(inside)} values")


def _number(kind: type, value: Any, limits: Range | None) -> int | float:
    limits = limits or Range()
    abstract: Any = numbers.Integral if kind is int else numbers.Real
    wanted = f"{'a whole number' if kind is int else 'a number'} {limits}".rstrip()
    wanted += f"; {limits.remedy}" if limits.remedy else ""
    if isinstance(value, bool) or not isinstance(value, abstract):
        raise MisfitError(wanted)
    if kind is int:
        whole = int(value)
        if whole not in limits:
            raise MisfitError(wanted)
        if limits.high is None and whole > LARGEST_INT:
            raise MisfitError(f"{wanted}, and at most {LARGEST_INT}")
        return whole
    single = _in_float32(value)
    if single is None:
        if limits.infinite and value == math.inf:
            return math.inf
        raise MisfitError(f"{wanted}, and finite in float32")
    if value not in limits or single not in limits:
        raise MisfitError(wanted if value not in limits else f"{wanted}, in float32 as well")
    return value if type(value) is float else float(value)


def _in_float32(value: Any) -> float | None:
    """As devices have it; None if that is not finite."""
    try:
        (single,) = struct.unpack("f", struct.pack("f", float(value)))
    except (OverflowError, ValueError):
        return None
    if not abs(single) <= LARGEST_FLOAT:
        return None
    return single if abs(single) >= SMALLEST_FLOAT else 0.0


def format_value(value: Any) -> str:
    """Format a value for a sentence; of a long one its beginning."""
    if isinstance(value, int) and value.bit_length() > SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"
    text = repr(value) if not isinstance(value, numbers.Number) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 100 else f"{text[:100]}..."


def _plain(number: float | int) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
