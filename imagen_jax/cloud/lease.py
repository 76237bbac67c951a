"""The lease of a run's watcher: two watchers would delete each other's slices."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from imagen_jax.cloud import gcloud
from imagen_jax.cloud.gcloud import Gcloud, GcloudError, MissingResourceError
from imagen_jax.runtime.lease import Lease
from imagen_jax.runtime.lease_file import FREE, MAX_BYTES, ReadLease, read_time
from imagen_jax.runtime.lease_holder import Holder

FILE = "watcher.json"  # below WORKDIR/launch
RENEWED = 60.0  # seconds between two signs of life
STALE = 900.0  # seconds without one: longer than gcloud's slowest answer and its further tries
SETTLED = 3.0  # seconds until another who took over at the same moment has written, too


@dataclass(frozen=True)
class GcloudLeaseFile:
    """The file in the bucket, through gcloud: a watcher's machine may have no other driver."""

    cloud: Gcloud
    address: str
    sleep: Callable[[float], None] = time.sleep

    def create(self, text: str) -> bool:
        """Write it unless it is there: the bucket lets one of two succeed."""
        try:
            self.cloud.run(gcloud.put(None, self.address, new=True), stdin=text)
        except GcloudError:
            if self.read() is None:
                raise
            return False
        return True

    def read(self) -> ReadLease | None:
        """Read the file; None where there is none."""
        try:
            text = self.cloud.run(gcloud.cat(self.address, first=MAX_BYTES))
        except MissingResourceError:
            return None
        return ReadLease(text, text, read_time(text))

    def replace(self, text: str, seen: ReadLease) -> bool:
        """Write over it; of several who do at once the last one has it."""
        self.touch(text)
        self.sleep(SETTLED)
        now = self.read()
        return now is not None and now.text == text

    def touch(self, text: str) -> None:
        """Write over it."""
        self.cloud.run(gcloud.put(None, self.address), stdin=text)

    def remove(self) -> None:
        """Leave a file without a holder."""
        self.touch(FREE)


def make_lease(
    cloud: Gcloud, address: str, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Lease:
    """This process's lease of a run."""
    return Lease(
        GcloudLeaseFile(cloud, address, sleep),
        where=address.rpartition("/")[0],
        remedy="end that watcher, or give --take-over",
        holder=Holder.here("imagen launch watch"),
        beat=RENEWED,
        silence=STALE,
        clock=clock,
        sleep=sleep,
    )
