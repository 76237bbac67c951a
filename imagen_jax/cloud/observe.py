"""Observation of an attempt: its queued resource, its nodes, and its workers' reports."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from imagen_jax import config
from imagen_jax.cloud import gcloud, untrusted
from imagen_jax.cloud.gcloud import Gcloud, MissingResourceError
from imagen_jax.cloud.run_record import Attempt, RunRecord

REPORTS = "worker-*.json"  # of an attempt
LONGEST = 1 << 16  # bytes of one; ours have the end of a log, of 4,000 characters, and little else


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """The report that a worker last wrote to the bucket."""

    worker: config.Whole
    of: config.Parallel  # workers of the run
    phase: str  # "setup", "running" or "ended"
    beat: config.Whole  # grows with each writing
    code: int | None = None  # once it has ended
    step: str | None = None  # the last finished one
    said: str = ""  # the end of its log, once it has ended
    silent: float = 0.0  # seconds since the beat last grew, by our own clock

    def __post_init__(self) -> None:
        config.check_fields(self, "report")
        untrusted.make_printable(self, "phase", "step")


@dataclass(frozen=True, kw_only=True)
class AttemptSnapshot:
    """An attempt, at one look."""

    queued: str | None  # state of the queued resource; None: there is none
    reason: str = ""  # what Google says about that state
    nodes: tuple[str, ...] = ()  # state of each slice; "MISSING": there is none
    workers: int = 0  # network endpoints of all slices
    reports: tuple[WorkerReport, ...] = ()
    active: float = 0.0  # seconds since it was first seen active


class HeartbeatTracker:
    """The times of the workers' last beats, by our own clock: other clocks may be wrong."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beats: dict[tuple[int, int], tuple[int, float]] = {}
        self._active: dict[int, float] = {}

    def silent(self, attempt: int, worker: int, beat: int) -> float:
        """Seconds since the beat of a worker was another one."""
        now = self._clock()
        last, since = self._beats.get((attempt, worker), (None, now))
        if last != beat:
            since = now
        self._beats[attempt, worker] = beat, since
        return now - since

    def active(self, attempt: int) -> float:
        """Seconds since this was first asked about an attempt."""
        return self._clock() - self._active.setdefault(attempt, self._clock())


def observe(
    cloud: Gcloud, run: RunRecord, attempt: Attempt, heartbeats: HeartbeatTracker
) -> AttemptSnapshot:
    """Observe an attempt once. Errors: GcloudError."""
    name = run.name(attempt)
    queued, reason = _queued(cloud, run, name)
    found = read_reports(cloud, run, attempt, heartbeats)
    if queued != "ACTIVE":
        return AttemptSnapshot(queued=queued, reason=reason, reports=found)
    described = [_node(cloud, run, node) for node in run.wanted.nodes(name)]
    return AttemptSnapshot(
        queued=queued,
        nodes=tuple(node.get("state", "UNKNOWN") for node in described),
        workers=sum(len(node.get("networkEndpoints", ())) for node in described),
        reports=found,
        active=heartbeats.active(attempt.number),
    )


def read_reports(
    cloud: Gcloud, run: RunRecord, attempt: Attempt, heartbeats: HeartbeatTracker
) -> tuple[WorkerReport, ...]:
    """Read the workers' reports, by number.

    Errors: GcloudError; ValueError for a report that no worker has written.
    """
    try:
        text = cloud.run(gcloud.cat(run.address(attempt, REPORTS), first=LONGEST))
    except MissingResourceError:
        return ()
    found = []
    for line in filter(None, text.splitlines()):
        try:
            report = untrusted.fill(WorkerReport, untrusted.parse_json(line), "report")
        except ValueError as error:
            where = run.address(attempt, REPORTS)
            raise ValueError(f"{where}: one of them is no worker's report ({error})") from error
        silent = heartbeats.silent(attempt.number, report.worker, report.beat)
        found.append(dataclasses.replace(report, silent=silent))
    return tuple(sorted(found, key=lambda report: report.worker))


def _queued(cloud: Gcloud, run: RunRecord, name: str) -> tuple[str | None, str]:
    try:
        found = cloud.ask(gcloud.describe(run.wanted, name))
    except MissingResourceError:
        return None, ""
    state = found.get("state", {})
    failed = state.get("failedData", {}).get("error", {})
    return state.get("state", "UNKNOWN"), failed.get("message", "")


def _node(cloud: Gcloud, run: RunRecord, name: str) -> dict[str, Any]:
    try:
        return cloud.ask(gcloud.node(run.wanted, name))
    except MissingResourceError:
        return {"state": "MISSING"}


def furthest_step(found: Sequence[WorkerReport]) -> str | None:
    """The last step that a worker finished; None before the first."""
    return next((report.step for report in found if report.step is not None), None)
