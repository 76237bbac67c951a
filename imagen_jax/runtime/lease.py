"""Leases of folders: one process at a time writes into one, and `lease.json` there names it.

Whether a holder still lives is looked up where it runs on this machine: no clock is asked, and a
dead one's lease is free at once, however it ended. Of a holder elsewhere (another host, another
container) there are only signs of life, so its lease is free once none came for `silence` seconds,
watched from here: a clock that was changed frees nothing.
"""

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from imagen_jax.io.bucket_errors import BucketError
from imagen_jax.io.workdir import Workdir
from imagen_jax.runtime.lease_file import ReadLease, open_lease_file, remove_empty_folders
from imagen_jax.runtime.lease_holder import Holder, parse_holder

FILE = "lease.json"
BEAT = 20.0  # seconds between two signs of life
SILENCE = 120.0  # seconds without one: longer than network file systems show old facts
TRIES = 10  # where several begin at the same moment


@runtime_checkable
class LeaseFile(Protocol):
    """The place of a lease's file. Errors: OSError where it can't be read or written."""

    def create(self, text: str) -> bool:
        """Write the file unless it is there; whether it was written."""
        ...

    def read(self) -> ReadLease | None:
        """Read the file; None where there is none."""
        ...

    def replace(self, text: str, seen: ReadLease) -> bool:
        """Write over what was seen, unless it has changed; whether it was written."""
        ...

    def touch(self, text: str) -> None:
        """Write what is there again, as a sign of life."""
        ...

    def remove(self) -> None:
        """Free it."""
        ...


@dataclass
class Lease:
    """The right to write into a folder, taken and given back."""

    place: LeaseFile
    where: str  # of the folder, for sentences
    remedy: str  # what to do where another has it
    holder: Holder
    beat: float = BEAT
    silence: float = SILENCE
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
    lost: Holder | None = field(default=None, init=False)  # who has taken over

    def take(self, *, over: bool = False, waits: bool = True) -> None:
        """Become the holder; with `over`, in place of any other.

        Of a holder elsewhere whose last sign of life is not old `waits` says whether to wait for
        the next one, which comes soon if it lives. Errors: ValueError where another holds it;
        OSError where the file can't be written.
        """
        for _ in range(TRIES):
            if self.place.create(self._text()):
                return
            seen = self.place.read()
            if seen is None:
                continue  # given back this moment
            other = parse_holder(seen)
            if other is not None and other.owner == self.holder.owner:
                return  # written by a try whose answer was lost
            if (other is None or over or self._is_free(other, seen, waits)) and self.place.replace(
                self._text(), seen
            ):
                return
        raise ValueError(f"{self.where}: several processes begin to use it at once; {self.remedy}")

    def check(self) -> None:
        """Errors: ValueError where another has taken over, as `renew` found."""
        if self.lost is not None:
            raise ValueError(
                f"{self.where}: {self.lost} has taken it over, after this process gave no sign of "
                "life for long: this one leaves it alone"
            )

    def renew(self, *, write: bool = True) -> None:
        """Give a sign of life, if this process still is the holder; else it is `lost`.

        Errors: OSError where the file can't be read or written.
        """
        seen = self.place.read()
        if seen is None:
            self.place.create(self._text())  # deleted by hand
            return
        other = parse_holder(seen)
        if other is not None and other.owner != self.holder.owner:
            self.lost = other
        elif write:
            self.place.touch(self._text())

    def give_back(self) -> None:
        """Hold it no longer, if this process did. Errors: OSError."""
        seen = self.place.read()
        other = None if seen is None else parse_holder(seen)
        if other is not None and other.owner == self.holder.owner:
            self.place.remove()

    def _is_free(self, other: Holder, seen: ReadLease, waits: bool) -> bool:
        """Return whether a holder is gone; False where another look is needed.

        Errors: ValueError where it lives.
        """
        if other.is_here:
            if other.lives:
                raise self._refusal(other, "it still runs")
            return True
        age = max(self.clock() - seen.at, 0.0)
        if age < self.silence and not waits:
            raise self._refusal(other, f"it gave a sign of life {age:.0f} s ago")
        # Old by the clock, which may be wrong here or there: it is watched for two beats at least.
        left = max(self.silence - age, 2 * self.beat)
        self.say(
            f"{self.where}: waiting for a sign of life of {other}, the last one came {age:.0f} s "
            f"ago; without one this process continues in {left:.0f} s"
        )
        while left > 0:
            self.sleep(self.beat / 4)
            left -= self.beat / 4
            now = self.place.read()
            if now is None or parse_holder(now) != other:
                return False
            if now.version != seen.version:
                raise self._refusal(other, "it just gave a sign of life")
        return True

    def _refusal(self, other: Holder, why: str) -> ValueError:
        return ValueError(
            f"{self.where} is in use by {other} since {other.since}, and {why}: {self.remedy}"
        )

    def _text(self) -> str:
        return json.dumps({**dataclasses.asdict(self.holder), "at": self.clock()}) + "\n"


@contextlib.contextmanager
def hold(folder: Workdir | str, *, command: str, option: str) -> Iterator[Lease]:
    """Hold a folder's lease until the block ends; signs of life are given by a thread.

    Errors: ValueError naming host, process and since when, where another holds it, where the file
    can't be written, or for what is there and no folder.
    """
    _refuse_file(folder, option)
    lease = Lease(
        open_lease_file(folder, FILE),
        where=str(folder),
        remedy=f"end that process, or give another {option}",
        holder=Holder.here(command),
    )
    with remove_empty_folders(folder):
        with _with_remedy(folder):
            lease.take()
        ended = threading.Event()
        beats = threading.Thread(target=_beats, args=(lease, ended), name="lease", daemon=True)
        beats.start()
        try:
            yield lease
        finally:
            ended.set()
            beats.join(lease.beat)
            try:
                lease.give_back()
            except Exception as error:  # the drivers' have no common kind; the work itself is done
                lease.say(f"{folder}: the lease was not given back ({_reason(error)})")


def _refuse_file(folder: Workdir | str, option: str) -> None:
    """Errors: ValueError for what is there and no folder."""
    if os.path.lexists(folder) and not os.path.isdir(folder):
        kind = "a link to no folder" if os.path.islink(folder) else "no folder"
        raise ValueError(f"{option} {folder} is {kind}: move it away, or give a folder")


def _beats(lease: Lease, ended: threading.Event) -> None:
    """Write signs of life until the end; of failures in a row the first is reported."""
    failed = False
    while lease.lost is None and not ended.wait(lease.beat):
        try:
            lease.renew()
            failed = False
        except Exception as error:  # the drivers' errors have no common kind
            if not failed:
                lease.say(
                    f"{lease.where}: no sign of life was written ({_reason(error)}); it is tried "
                    f"again every {lease.beat:.0f} s"
                )
            failed = True


@contextlib.contextmanager
def _with_remedy(folder: Workdir | str) -> Iterator[None]:
    """Turn what the disk or a bucket's driver says into one sentence."""
    try:
        yield
    except ValueError:
        raise
    except BucketError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # the drivers' errors have no common kind
        raise ValueError(
            f"{folder}: {FILE}, which keeps other processes out, can't be written "
            f"({_reason(error)}): make room or check the rights there, or give another folder"
        ) from error


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
