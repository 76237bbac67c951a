"""Who watches a run: two watchers would delete each other's slices."""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from imagen_jax.cloud import gcloud
from imagen_jax.cloud.gcloud import Failed, Gcloud, Missing

FILE = "watcher.json"  # below WORKDIR/launch
RENEWED = 60.0  # seconds between two signs of life
STALE = 900.0  # seconds without one: longer than gcloud's slowest answer and its further tries
SETTLED = 3.0  # seconds until whoever took over at the same moment has written, too


@dataclass
class Lease:
    """A file in the bucket, written by one watcher at a time."""

    cloud: Gcloud
    place: str  # of the file
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    who: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _owner: str = field(default="", init=False)
    _renewed: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._owner = f"{self.who}:{secrets.token_hex(8)}"

    def take(self, *, over: bool = False) -> None:
        """Begin to watch; with `over`, whoever else does.

        Errors: ValueError where another watcher gave a sign of life lately; gcloud.Failed.
        """
        try:
            self._write(new=True)  # the bucket lets one of two succeed
        except Failed:
            other, since = self._read()
            age = self.clock() - since
            if other and not over and age < STALE and not _is_dead(other):
                raise ValueError(
                    f"{_named(other)} watches this run and gave a sign of life {max(age, 0):.0f} s "
                    f"ago ({self.place}): end that one, or give --take-over"
                ) from None
            self._write()
            self.sleep(SETTLED)
            self.hold(renew=False)

    def hold(self, *, renew: bool = True) -> None:
        """Go on watching. Errors: ValueError where another has taken over; gcloud.Failed."""
        if renew and self.clock() - self._renewed < RENEWED:
            return
        other, _ = self._read()
        if other != self._owner:
            raise ValueError(
                f"{_named(other)} watches this run now ({self.place}): this watcher leaves it alone"
            )
        if renew:
            self._write()

    def give_back(self) -> None:
        """Watch no longer, if it was us. Errors: gcloud.Failed."""
        if self._read()[0] == self._owner:
            self._write(owner="")

    def _read(self) -> tuple[str, float]:
        """Owner and time of the last sign of life."""
        try:
            told = json.loads(self.cloud.run(gcloud.cat(self.place)))
            return str(told["owner"]), float(told["at"])
        except (Missing, ValueError, KeyError, TypeError):
            return "", 0.0  # none, or no file of ours: to be written over

    def _write(self, *, new: bool = False, owner: str | None = None) -> None:
        told = {"owner": self._owner if owner is None else owner, "at": self.clock()}
        self.cloud.run(gcloud.put(None, self.place, new=new), stdin=json.dumps(told) + "\n")
        self._renewed = self.clock()


def _named(owner: str) -> str:
    return f"{owner.rpartition(':')[0]} (host:process)" if owner else "nobody"


def _is_dead(owner: str) -> bool:
    """Whether it was a process of this machine that has ended."""
    host, process, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(process) == os.getpid()  # as in a container that was started again
