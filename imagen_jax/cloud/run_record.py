"""A run as the bucket remembers it: what runs, its limits and its attempts."""

import dataclasses
import json
from dataclasses import dataclass

from imagen_jax.cloud.tpu_slice import Slice

FOLDER = "launch"  # below the workdir
FILE = "run.json"
FORMAT = 1


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

    @property
    def folder(self) -> str:
        """Everything of the launcher's, in the bucket."""
        return f"{self.workdir}/{FOLDER}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a launch's costs."""

    until: float  # seconds since 1970
    max_restarts: int = 20
    silence: int = 600  # seconds without a sign of life until a worker counts as gone
    setup: int = 1800  # seconds from a granted slice to the first sign of life of every worker
    linger: int = 1800  # seconds until machines that ended delete themselves, if nobody did


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt: a queued resource."""

    number: int
    made: float  # seconds since 1970
    ended: str | None = None  # why; None while it is the present one
    granted: bool = False  # a worker was heard of
    code: int | None = None  # of a crash
    step: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The whole record."""

    job: LaunchSpec
    wanted: Slice
    limits: Limits
    attempts: tuple[Attempt, ...] = ()
    before: int = 0  # attempts of earlier launches to the same workdir
    finished: str | None = None  # how it ended, once it has

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
    """Errors: ValueError for what `to_json` did not write, or a newer version did."""
    try:
        found = json.loads(text)
        if found["format"] > FORMAT:
            raise ValueError(f"{where} has format {found['format']}: a newer imagen_jax wrote it")
        job = found["job"]
        return RunRecord(
            job=LaunchSpec(
                **{
                    **job,
                    "commands": tuple(tuple(c) for c in job["commands"]),
                    "packages": tuple(job["packages"]),
                    "once": tuple(job.get("once", ())),
                }
            ),
            wanted=Slice(**found["wanted"]),
            limits=Limits(**found["limits"]),
            attempts=tuple(Attempt(**a) for a in found["attempts"]),
            before=found["before"],
            finished=found["finished"],
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{where} is no record of a launch ({error})") from error
