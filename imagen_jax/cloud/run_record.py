"""A run as the bucket remembers it: what runs, its limits and its attempts.

Everyone who can write to the bucket can write the record, so that what is made of it passes the
same rules as what is made of the command line.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any

from imagen_jax import config
from imagen_jax.cloud import untrusted, validate
from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.config import Range, require, shorten
from imagen_jax.io.buckets import is_bucket

FOLDER = "launch"  # below the workdir
FILE = "run.json"
FORMAT = 1

Moment = Annotated[float, Range(low=0, high=1e11)]  # seconds since 1970
Seconds = Annotated[int, Range(low=0, high=10**11)]
Number = Annotated[int, Range(low=1, high=10**6)]  # of an attempt


@dataclass(frozen=True, kw_only=True)
class LaunchSpec:
    """The commands of every worker, in every attempt."""

    run_id: str
    workdir: str
    commands: tuple[tuple[str, ...], ...]  # in order
    code: str | None = None  # name of the file that was shipped
    image: str | None = None  # or a container image
    packages: tuple[str, ...] = ()  # of Ubuntu, installed before
    once: tuple[int, ...] = ()  # places of the commands that worker 0 alone runs

    def __post_init__(self) -> None:
        config.check_fields(self, "job")
        validate.check_names("run id", self.run_id)
        validate.check_names("workdir", self.workdir)
        if self.code is not None:
            validate.check_names("file of code", self.code)
        if self.image is not None:
            validate.check_names("image", self.image)
        for package in self.packages:
            validate.check_names("package", package)
        for command in self.commands:
            _check_command(command)
        for place in self.once:
            require(0 <= place < len(self.commands), f"once={place}: there is no such command")

    @property
    def folder(self) -> str:
        """Everything of the launcher's, in the bucket."""
        return f"{self.workdir}/{FOLDER}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a launch's costs."""

    until: Moment
    max_restarts: config.Whole = 20
    silence: Seconds = 600  # seconds without a sign of life until a worker counts as gone
    setup: Seconds = 1800  # seconds from a granted slice to the first sign of life of every worker
    linger: Seconds = 1800  # seconds until machines that ended delete themselves, if nobody did

    def __post_init__(self) -> None:
        config.check_fields(self, "limits")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt: a queued resource."""

    number: Number
    made: Moment
    ended: str | None = None  # why; None while it is the present one
    granted: bool = False  # a worker was heard of
    code: int | None = None  # of a crash
    step: str | None = None

    def __post_init__(self) -> None:
        config.check_fields(self, "attempt")
        untrusted.make_printable(self, "ended", "step")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The whole record."""

    job: LaunchSpec
    wanted: Slice
    limits: Limits
    attempts: tuple[Attempt, ...] = ()
    before: Annotated[int, Range(low=0, high=10**6)] = (
        0  # attempts of earlier launches to the same workdir
    )
    finished: str | None = None  # how it ended, once it has

    def __post_init__(self) -> None:
        config.check_fields(self, "run")
        untrusted.make_printable(self, "finished")

    @property
    def current(self) -> Attempt | None:
        """The attempt whose resource exists, or may."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.ended is None else None

    @property
    def next_number(self) -> int:
        """The number of the next attempt; none comes twice in a workdir."""
        return max((a.number for a in self.attempts), default=self.before) + 1

    def name(self, attempt: Attempt) -> str:
        """Name the attempt's queued resource."""
        return f"{self.job.run_id}-{attempt.number}"

    def address(self, attempt: Attempt, file: str) -> str:
        """Return the address of a file of the attempt in the bucket."""
        return f"{self.job.folder}/{attempt.number}/{file}"

    def with_attempt(self, attempt: Attempt) -> "RunRecord":
        """The record with this attempt, new or in place of its earlier state."""
        others = tuple(a for a in self.attempts if a.number != attempt.number)
        return dataclasses.replace(self, attempts=(*others, attempt))


def to_json(run: RunRecord) -> str:
    """The record as JSON; `from_json` rebuilds it."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(run)}, indent=2)


def from_json(text: str, *, where: str) -> RunRecord:
    """Rebuild the record that is in the file `where`.

    Errors: ValueError for what `to_json` did not write, a newer version did, or the command line
    would refuse; and for the record of another workdir than the one that it was read from.
    """
    try:
        run = _rebuild(untrusted.parse_json(text))
    except ValueError as error:
        raise ValueError(f"{where} is no record of a launch ({error})") from error
    if is_bucket(where) and where != f"{run.job.folder}/{FILE}":
        raise ValueError(
            f"{where} is the record of {run.job.workdir}, and not of the folder that it is in: "
            "somebody has changed it or copied it; look who may write there"
        )
    return run


def _rebuild(found: Any) -> RunRecord:
    """Errors: ValueError, as `from_json`, as the rest of a sentence."""
    require(isinstance(found, dict), "it is no object")
    written = found.pop("format", None)
    newer = type(written) is int and written > FORMAT
    require(not newer, f"format {written}: a newer imagen_jax wrote it")
    require(type(written) is int and written == FORMAT, f"format={shorten(written)}: give {FORMAT}")
    parts = {"job": LaunchSpec, "wanted": Slice, "limits": Limits}
    for name, kind in parts.items():
        found[name] = untrusted.fill(kind, found.get(name), name)
    attempts = found.get("attempts", [])
    require(isinstance(attempts, list), "attempts: must be a list")
    found["attempts"] = tuple(untrusted.fill(Attempt, a, "attempt") for a in attempts)
    run = untrusted.fill(RunRecord, found, "run")
    require(bool(run.job.commands), "commands: there are none")
    return run


def _check_command(words: tuple[str, ...]) -> None:
    """Errors: ValueError for what no command line would have given."""
    require(bool(words and words[0]), "commands: one of them has no words")
    for word in words:
        require("\0" not in word, f"commands: {word[:80]!r} has a zero byte")
    config.check_texts(words, what="commands: word")
    if words[0] == "imagen":
        known = len(words) > 1 and words[1] != "launch"
        require(known, f"commands: {' '.join(words[:3])!r} is no command of a worker")
