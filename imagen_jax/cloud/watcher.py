"""The loop that looks, decides and acts, until the run is done; all it needs is in the bucket."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from imagen_jax.cloud import gcloud, lease, run_record, untrusted
from imagen_jax.cloud.gcloud import Gcloud, GcloudError, MissingResourceError
from imagen_jax.cloud.observe import HeartbeatTracker, WorkerReport, observe
from imagen_jax.cloud.restart_policy import Decision, decide
from imagen_jax.cloud.run_record import Attempt, RunRecord
from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.runtime.exit_codes import PREEMPTED
from imagen_jax.runtime.lease import Lease

LONGEST = 300.0  # seconds between a resource that failed and the next one
TAIL = 4000  # characters of a crash's log
TRIES = 10  # to delete a resource
STOPPED = "stopped by `imagen launch stop`"


@dataclass
class Watcher:
    """Keeps one run going."""

    cloud: Gcloud
    run: RunRecord
    startup: Path  # the script that the machines run at boot
    every: float = 30.0  # seconds between looks
    take_over: bool = False  # although another watches
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    _reported: str = field(default="", init=False)
    _lease: Lease = field(init=False)
    _renewed: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        address = f"{self.run.job.folder}/{lease.FILE}"
        self._lease = lease.make_lease(self.cloud, address, clock=self.clock, sleep=self.sleep)

    def begin(self) -> int:
        """Create the first attempt, and leave it alone. Errors: as `watch`."""
        self._create()
        again = f"imagen launch watch {self.run.job.workdir}"
        self._report(f"created; `{again}` keeps it up and deletes it at the end")
        return 0

    def watch(self) -> int:
        """Until the run is done, stopped or given up; then nothing of it is left. The exit code.

        Errors: gcloud.GcloudError where a resource can't be created; where one can't be deleted,
        with the command to do so; ValueError where another watches. Ctrl-C leaves the run as it is.
        """
        self._lease.take(over=self.take_over, waits=False)
        self._renewed = self.clock()
        try:
            self.run = read_record(
                self.cloud, self.run.job.workdir
            )  # as the watcher before left it
            return self._watch()
        finally:
            self._give_back()

    def _watch(self) -> int:
        if self.run.finished is not None:
            self._report(f"it has ended ({self.run.finished}); `imagen launch tpu` begins again")
            return 0
        heartbeats = HeartbeatTracker(self.clock)
        while True:
            self._hold()
            current = self.run.current or self._create()
            if current is None:
                self._pause()
                continue
            decision = self._decide(current, heartbeats)
            self._report(decision.why)
            if decision.do == "wait":
                self.sleep(self.every)
                continue
            self._hold(renew=False)  # what follows deletes
            self._end(current, decision)
            if decision.do != "again":
                return decision.code
            self._pause()

    def _hold(self, *, renew: bool = True) -> None:
        """Errors: ValueError where another has taken over."""
        now = self.clock()
        if renew and now - self._renewed < lease.RENEWED:
            return
        try:
            self._lease.renew(write=renew)
            self._renewed = now if renew else self._renewed
        except GcloudError as error:
            self._report(f"no sign of life this time: {error}")
        self._lease.check()

    def _give_back(self) -> None:
        try:
            self._lease.give_back()
        except GcloudError as error:
            self._report(f"the next watcher has to give --take-over: {error}")

    def _decide(self, current: Attempt, heartbeats: HeartbeatTracker) -> Decision:
        """Look, and apply the rule. Where gcloud does not answer the run continues without us."""
        try:
            seen = observe(self.cloud, self.run, current, heartbeats)
            if seen.reports and not current.granted:
                current = dataclasses.replace(current, granted=True)
                self._save(self.run.with_attempt(current))
        except (GcloudError, ValueError, KeyError, TypeError) as error:
            if self.clock() > self.run.limits.until:
                return Decision(do="stop", why=f"the deadline has passed; {error}", code=PREEMPTED)
            return Decision(do="wait", why=f"no look this time: {error}")
        decision = decide(seen, self.run, now=self.clock())
        if decision.do == "again" and self._is_asked_to_stop():
            return Decision(do="stop", why=STOPPED, code=PREEMPTED)
        return decision

    def _is_asked_to_stop(self) -> bool:
        """Return whether `imagen launch stop` was given elsewhere; nothing is created then."""
        try:
            return read_record(self.cloud, self.run.job.workdir).finished is not None
        except (GcloudError, ValueError):
            return False

    def _create(self) -> Attempt | None:
        """A new attempt: noted first, so that whatever is created is found again.

        None where a successor was refused: what is being deleted may hold the quota for a while.
        """
        attempt = Attempt(number=self.run.next_number, made=self.clock())
        self._save(self.run.with_attempt(attempt))
        name = self.run.name(attempt)
        self._report(f"creating {name}: {self.run.wanted.accelerator} in {self.run.wanted.zone}")
        try:
            self.cloud.run(create_command(self.run, attempt, self.startup, now=self.clock()))
        except GcloudError as error:
            self._report(str(error))
            tries = len(self.run.attempts)
            late = self.clock() > self.run.limits.until
            final = tries == 1 or tries > self.run.limits.max_restarts or late
            self._end(attempt, Decision(do="stop" if final else "again", why=str(error)))
            if final:
                raise
            return None
        return attempt

    def _end(self, attempt: Attempt, decision: Decision) -> None:
        """Delete the attempt's resource, and note how it ended."""
        if decision.crash is not None:
            self._show(decision.crash)
        self._remove(self.run.name(attempt))
        crash = decision.crash
        latest = next(a for a in self.run.attempts if a.number == attempt.number)
        ended = dataclasses.replace(
            latest,
            ended=decision.why,
            code=crash.code if crash else None,
            step=crash.step if crash else None,
        )
        run = self.run.with_attempt(ended)
        if decision.do != "again":
            run = dataclasses.replace(run, finished=decision.why)
        self._save(run)

    def _remove(self, name: str) -> None:
        """Google refuses to delete what is just being provisioned: tried for some minutes."""
        for _ in range(TRIES - 1):
            try:
                return delete_resources(self.cloud, self.run.wanted, name)
            except GcloudError as error:
                self._report(str(error))
                self.sleep(self.every)
        return delete_resources(self.cloud, self.run.wanted, name)

    def _show(self, crash: WorkerReport) -> None:
        address = self.run.address(self.run.attempts[-1], f"worker-{crash.worker}.log")
        print(
            f"\n---- {address}\n{untrusted.spell_controls(crash.said[-TAIL:].rstrip())}\n",
            file=sys.stderr,
            flush=True,
        )

    def _pause(self) -> None:
        """Longer and longer, while no attempt comes to anything."""
        vain = 0
        for attempt in reversed(self.run.attempts):
            if attempt.granted and (attempt.code is None or attempt.step is not None):
                break
            vain += 1
        if vain:
            self.sleep(min(2.0**vain, LONGEST))

    def _save(self, run: RunRecord) -> None:
        write_record(self.cloud, run)
        self.run = run

    def _report(self, sentence: str) -> None:
        if sentence != self._reported:
            print(f"{self.run.job.run_id}: {sentence}", file=sys.stderr, flush=True)
            self._reported = sentence


def create_command(run: RunRecord, attempt: Attempt, startup: Path, *, now: float) -> list[str]:
    """The command that creates an attempt's resource; it is not granted after the deadline."""
    job = run.job
    metadata = {
        "imagen-run": job.run_id,
        "imagen-folder": job.folder,
        "imagen-attempt": str(attempt.number),
        "imagen-generation": run.wanted.generation,
        "imagen-zone": run.wanted.zone,
        "imagen-until": str(int(run.limits.until)),
        "imagen-linger": str(run.limits.linger),
        **({"imagen-code": job.code} if job.code else {}),
        **({"imagen-image": job.image} if job.image else {}),
        **({"imagen-packages": "+".join(job.packages)} if job.packages else {}),
    }
    valid = max(int(run.limits.until - now), 60)
    name = run.name(attempt)
    return gcloud.create(run.wanted, name, startup=startup, metadata=metadata, valid=valid)


def write_record(cloud: Gcloud, run: RunRecord) -> None:
    """Write the record. Errors: gcloud.GcloudError."""
    cloud.run(
        gcloud.put(None, f"{run.job.folder}/{run_record.FILE}"),
        stdin=run_record.to_json(run) + "\n",
    )


def read_record(cloud: Gcloud, workdir: str) -> RunRecord:
    """The record of the run in `workdir`.

    Errors: ValueError where there is none; gcloud.GcloudError.
    """
    address = f"{workdir}/{run_record.FOLDER}/{run_record.FILE}"
    try:
        text = cloud.run(gcloud.cat(address, first=untrusted.MAX_TEXT + 1))
        return run_record.from_json(text, where=address)
    except MissingResourceError as error:
        raise ValueError(
            f"{workdir} was not launched: it has no {run_record.FOLDER}/{run_record.FILE}; give "
            f"the "
            "--workdir of `imagen launch tpu`"
        ) from error


def delete_resources(cloud: Gcloud, wanted: Slice, name: str) -> None:
    """Delete a queued resource with its nodes, and look whether it is gone.

    Errors: gcloud.GcloudError, with the command to give by hand.
    """
    command = gcloud.delete(wanted, name)
    try:
        with contextlib.suppress(MissingResourceError):
            cloud.run(command)
        if not cloud.dry:
            with contextlib.suppress(MissingResourceError):
                found = cloud.ask(gcloud.describe(wanted, name))
                state = found.get("state", {}).get("state")
                if state != "DELETING":
                    raise GcloudError(f"{name} is still there, {state}")
    except GcloudError as error:
        by_hand = " ".join(["gcloud", *command])
        raise GcloudError(
            f"{name} was not deleted and may cost money ({error}): {by_hand}"
        ) from error


def mark_stopped(run: RunRecord) -> RunRecord:
    """Mark a run as stopped by a user."""
    if run.current is not None:
        run = run.with_attempt(dataclasses.replace(run.current, ended=STOPPED))
    return dataclasses.replace(run, finished=run.finished or STOPPED)
