"""The file of a lease, here or in a bucket: created and replaced so that one of two succeeds."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imagen_jax.io import buckets, json_reader, whole_files
from imagen_jax.io.atomic import write_atomic
from imagen_jax.io.bucket_errors import explain_failures
from imagen_jax.io.workdir import Workdir, as_path

FREE = "{}"  # the text of a lease that nobody holds, where files are not removed
MAX_BYTES = 4096  # of a lease's text that are read: ours has a tenth
LATEST = 1e11  # seconds since 1970 that a lease may state
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # file systems that have none


class ReadLease(NamedTuple):
    """A file as it was read."""

    text: str
    version: str  # another one after each writing
    at: float  # when it was last written, by the clock of its writer


def open_lease_file(folder: Workdir | str, name: str) -> "LocalLeaseFile | BucketLeaseFile":
    """Open the file `name` of a folder, which is made if missing. Errors: as `workdir.as_path`."""
    folder = as_path(folder)
    if not isinstance(folder, Path):
        return BucketLeaseFile(f"{folder}/{name}")
    return LocalLeaseFile(folder / name)


@contextlib.contextmanager
def remove_empty_folders(folder: Workdir | str) -> Iterator[None]:
    """Folders that are made in the block do not stay when they are empty at its end."""
    folder = as_path(folder)
    missing = [p for p in (folder, *folder.parents) if isinstance(p, Path) and not p.exists()]
    try:
        yield
    finally:
        for place in missing:
            with contextlib.suppress(OSError):  # it is used, or was never made
                place.rmdir()


def read_time(text: str) -> float:
    """The time in a lease's text; 0 where there is none."""
    with contextlib.suppress(ValueError):
        at = json_reader.parse_object(text, where="it", remedy="delete it").get("at")
        if isinstance(at, int | float) and type(at) is not bool and 0 <= at < LATEST:
            return float(at)
    return 0.0


@dataclass(frozen=True)
class LocalLeaseFile:
    """A file of a file system, of this machine or of a network."""

    file: Path

    def create(self, text: str) -> bool:
        """Write it unless it is there."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.file.open("x") as opened, _removed_unless_written(self.file):
                opened.write(text)
                opened.flush()
        except FileExistsError:
            return False
        return True

    def read(self) -> ReadLease | None:
        """Read the file; None where there is none."""
        try:
            # A network's file system asks its server again when a file is opened.
            with whole_files.open_file(self.file) as opened:
                about = os.fstat(opened.fileno())
                version = f"{about.st_ino} {about.st_mtime_ns}"
                text = opened.read(MAX_BYTES).decode(errors="replace")
                return ReadLease(text, version, about.st_mtime)
        except FileNotFoundError:
            return None

    def replace(self, text: str, seen: ReadLease) -> bool:
        """Write over what was seen, under a lock."""
        with contextlib.ExitStack() as stack:
            try:
                opened = stack.enter_context(self.file.open())
            except FileNotFoundError:
                return False
            _lock(opened.fileno())
            if self.read() != seen:
                return False
            write_atomic(self.file, text)
        return True

    def touch(self, text: str) -> None:
        """A new time of change needs no room on a full disk."""
        os.utime(self.file, follow_symlinks=False)

    def remove(self) -> None:
        """Delete it."""
        self.file.unlink(missing_ok=True)


@dataclass(frozen=True)
class BucketLeaseFile:
    """An object of a bucket (`gs://`), by its generation."""

    address: str

    def create(self, text: str) -> bool:
        """Write it unless it is there: the bucket lets one of two succeed."""
        try:
            with explain_failures(self.address, "written"):
                buckets.driver().pipe_file(self.address, text.encode(), mode="create")
        except FileExistsError:
            return False
        return True

    def read(self) -> ReadLease | None:
        """Read the file; None where there is none."""
        try:
            text = buckets.read(self.address, 0, MAX_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return None
        return ReadLease(text, text, read_time(text))

    def replace(self, text: str, seen: ReadLease) -> bool:
        """Delete that generation, which one of two can, then create it."""
        driver, (bucket, key) = buckets.driver(), buckets.split_address(self.address)
        try:
            with explain_failures(self.address, "written"):
                generation = driver.info(self.address)["generation"]
                if self.read() != seen:
                    return False
                driver.call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=generation)
        except (FileNotFoundError, FileExistsError):
            return False
        return self.create(text)

    def touch(self, text: str) -> None:
        """Another generation."""
        buckets.write(self.address, text.encode())

    def remove(self) -> None:
        """Delete it."""
        buckets.delete(self.address)


@contextlib.contextmanager
def _removed_unless_written(file: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
