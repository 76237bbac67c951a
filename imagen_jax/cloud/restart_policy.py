"""The next action for an attempt: a pure function of what is seen, what was, and the limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from imagen_jax.cloud.observe import AttemptSnapshot, WorkerReport, furthest_step
from imagen_jax.cloud.run_record import Attempt, Limits, RunRecord
from imagen_jax.runtime import exit_codes
from imagen_jax.runtime.supervisor import same_step

# Source: Google, "Manage queued resources"; ACCEPTED is the older name of WAITING_FOR_RESOURCES.
COMING = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING")
GOING = ("SUSPENDING", "DELETING")  # its workers may still be saving: not to be cut short
LOST = ("FAILED", "SUSPENDED")
ALIVE = ("READY", "CREATING", "STARTING", "REPAIRING", "RESTARTING", "UNKNOWN")  # of a node
SOON = 90.0  # seconds: three beats; a worker that is alive has said by then why it ended, too
FOREVER = 2  # resources that failed in a row before a worker was heard of
MACHINE = (
    exit_codes.PREEMPTED,
    exit_codes.LOST,
    128 + 15,
    128 + 1,
)  # SIGTERM and SIGHUP end machines


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Wait; again: delete and create; done and stop: delete, with an exit code."""

    do: Literal["wait", "again", "done", "stop"]
    why: str = ""
    code: int = 0
    crash: WorkerReport | None = None  # whose fault it was, where it was the program's


def decide(seen: AttemptSnapshot, run: RunRecord, *, now: float) -> Decision:
    """The rule. `now` is in seconds since 1970.

    What workers say comes before what Google says: states lie, and a run may end as machines go.
    """
    ended = [report for report in seen.reports if report.phase == "ended"]
    expected = seen.reports[0].of if seen.reports else None
    if expected is not None and len(ended) == expected and not any(r.code for r in ended):
        return Decision(do="done", why="the command ended well on every worker")
    refused = [
        r for r in ended if r.code in (exit_codes.REFUSED, exit_codes.BAD_USAGE) and r.step is None
    ]
    if refused:
        return Decision(
            do="stop",
            why=f"worker {refused[0].worker} refused its input; another start would not help",
            code=refused[0].code or exit_codes.REFUSED,
            crash=refused[0],
        )
    if now > run.limits.until:
        return Decision(do="stop", why="the deadline has passed", code=exit_codes.PREEMPTED)
    if lost := _lost(seen, run.limits):
        crash = next((r for r in ended if r.code and r.code not in MACHINE), None)
        return _again(lost, crash, seen, run)
    return Decision(do="wait", why=_waiting(seen))


def _lost(seen: AttemptSnapshot, limits: Limits) -> str | None:
    """Give the reason why the attempt has failed; None if it may still succeed."""
    failed = next((r for r in seen.reports if r.phase == "ended" and r.code), None)
    if failed is not None:
        culprit = next((r for r in seen.reports if r.code and r.code not in MACHINE), failed)
        running = [r for r in seen.reports if r.phase != "ended" and r.silent < SOON]
        if culprit.code in MACHINE and running:
            return None  # the others say soon whose fault it was
        return f"worker {culprit.worker} ended with code {culprit.code}"
    if seen.queued is None:
        return "the queued resource is gone"
    if seen.queued in LOST:
        return f"the queued resource is {seen.queued}" + (f" ({seen.reason})" * bool(seen.reason))
    if seen.queued != "ACTIVE":
        return None
    if dead := [state for state in seen.nodes if state not in ALIVE]:
        return f"a slice is {dead[0]}"
    silent = [r for r in seen.reports if r.phase != "ended" and r.silent >= limits.silence]
    if silent:
        return f"worker {silent[0].worker} gave no sign of life for {silent[0].silent:.0f} s"
    expected = seen.reports[0].of if seen.reports else max(seen.workers, 1)
    if len(seen.reports) < expected and seen.active >= limits.setup:
        here = [r.worker for r in seen.reports]
        missing = next(n for n in range(expected) if n not in here)
        return f"worker {missing} of {expected} was not heard of in {seen.active:.0f} s"
    return None


def _again(
    lost: str, crash: WorkerReport | None, seen: AttemptSnapshot, run: RunRecord
) -> Decision:
    """Create again, unless that would not help or is not allowed."""
    code = crash.code if crash is not None and crash.code else exit_codes.PREEMPTED
    if crash is not None:
        before = [a.step for a in run.attempts[:-1] if a.code is not None]
        if same_step([*before, crash.step]):
            why = f"{lost}, at the step of the crash before; another start would not help"
            return Decision(do="stop", why=why, code=code, crash=crash)
    elif not seen.reports and seen.queued == "FAILED" and _failing(run.attempts):
        why = f"{lost}, as the one before; see `imagen launch status` and the quota of the zone"
        return Decision(do="stop", why=why, code=exit_codes.REFUSED)
    if len(run.attempts) > run.limits.max_restarts:
        why = f"{lost}; all {run.limits.max_restarts} restarts are used up"
        return Decision(do="stop", why=why, code=code, crash=crash)
    return Decision(do="again", why=lost, crash=crash)


def _failing(attempts: Sequence[Attempt]) -> bool:
    """Return whether the earlier resources failed, too, before a worker was heard of."""
    before = attempts[-FOREVER:-1]
    return len(before) == FOREVER - 1 and not any(a.granted for a in before)


def _waiting(seen: AttemptSnapshot) -> str:
    """Describe in a few words what the watcher waits for."""
    if not seen.reports:
        return f"the queued resource is {seen.queued}"
    phases = sorted({r.phase for r in seen.reports})
    step = furthest_step(seen.reports)
    here = f"{len(seen.reports)} of {seen.reports[0].of} workers: {' and '.join(phases)}"
    return f"{here}; {step}" if step else here
