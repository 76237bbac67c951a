"""Buckets (`gs://`) through fsspec's driver: found, listed, read whole or in ranges, written whole.

The driver (`bucket_driver`) asks again for half a minute where that helps; what fails then is one
sentence (see `bucket_errors`). Run folders go through epath, checkpoints of T5X through
TensorStore; both use this module's addresses.
"""

import base64
import functools
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imagen_jax import extras, limits
from imagen_jax.io.bucket_errors import BucketError, MissingObjectError, explain_failures
from imagen_jax.limits import Limit

BUCKET = "gs://"  # how an address begins
BLOCK = 4 << 20  # bytes that are fetched at once when an object is read through


EMPTY = 416  # the answer for an object without a first byte


class BucketObject(NamedTuple):
    """An object as a bucket lists it."""

    path: str  # gs://bucket/key
    size: int  # bytes
    generation: str  # another one once it has been written again


def is_bucket(path: object) -> bool:
    """Return whether a path is the address of a bucket or of something in one."""
    return str(path).startswith(BUCKET)


def split_address(address: str) -> tuple[str, str]:
    """Split an address into the bucket's name and the key, "" for the bucket itself."""
    bucket, _, key = address.removeprefix(BUCKET).partition("/")
    return bucket, key


def require_driver(path: object) -> None:
    """Refuse an address where its driver is missing; else the driver is used from then on.

    Errors: ValueError with the command that installs it.
    """
    if is_bucket(path):
        extras.require("gcsfs", f"{path}: buckets need")
        _registered()


def driver() -> Any:
    """Return fsspec's file system of buckets that belongs to this thread and process.

    It keeps no listings: other processes write, too. Its own errors are those of its libraries;
    the functions here explain them.
    """
    import fsspec

    patience = _registered().patience()
    return fsspec.filesystem("gs", use_listings_cache=False, requests_timeout=patience)


@functools.cache
def _registered() -> Any:
    """Load the driver's module, for which its package has to be there; it is fsspec's from then on.

    epath's own calls, and so Orbax's, go through it as well.
    """
    from imagen_jax.io import bucket_driver

    bucket_driver.register()
    return bucket_driver


def glob(pattern: str) -> Iterator[BucketObject]:
    """List the objects whose addresses match a pattern. Errors: OSError."""
    with explain_failures(pattern, "listed"):
        found = driver().glob(pattern, detail=True)
    return _objects(found.values())


def list_below(folder: str) -> Iterator[BucketObject]:
    """List the objects below an address. Errors: OSError."""
    with explain_failures(folder, "listed"):
        found = driver().find(folder, detail=True)
    return _objects(found.values())


def list_folder(folder: str) -> Iterator[BucketObject]:
    """List the objects whose addresses are `folder/NAME`, in one request; none where it is none.

    Errors: OSError.
    """
    try:
        with explain_failures(folder, "listed"):
            found = driver().ls(folder, detail=True)
    except MissingObjectError:
        found = []
    return (one for one in _objects(found) if one.path.startswith(f"{folder}/"))


def _objects(entries: Iterable[Mapping[str, Any]]) -> Iterator[BucketObject]:
    for about in entries:
        if about["type"] == "file":
            yield BucketObject(BUCKET + about["name"], about["size"], str(about["generation"]))


def read(address: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Read an object, or its bytes from `start` to before `stop`; fewer where it has fewer.

    Errors: OSError; of its kinds FileNotFoundError where there is none.
    """
    with explain_failures(address, "read"):
        return driver().cat_file(address, start=start, end=stop)


def read_whole(address: str, limit: Limit = limits.FILE_BYTES) -> bytes:
    """Read all of an object, in one request.

    Errors: as `read`; ValueError for more bytes than `limit` allows.
    """
    data = read_beginning(address, limit.value() + 1)
    limit.check(len(data), f"{address} has at least")
    return data


def read_beginning(address: str, most: int) -> bytes:
    """Read an object's first bytes in one request, `most` or all that it has. Errors: as `read`."""
    from gcsfs.retry import HttpError

    with explain_failures(address, "read"):
        try:
            return driver().cat_file(address, start=0, end=most)
        except HttpError as error:
            if error.code != EMPTY:
                raise
            return b""


def read_range(found: BucketObject, start: int, stop: int) -> bytes:
    """Read an object's bytes from `start` to before `stop`, all of one generation.

    Errors: OSError, also where the object was written again or deleted since.
    """
    if start >= stop:
        return b""
    try:
        with explain_failures(found.path, "read"):
            asked, span = driver(), {"Range": f"bytes={start}-{stop - 1}"}
            where = asked.url(found.path)
            _, data = asked.call("GET", where, headers=span, ifGenerationMatch=found.generation)
    except FileExistsError as error:  # what the driver makes of 412
        raise BucketError(
            f"{found.path} was written again, or deleted, while it was read: give the same command "
            "again, once nobody writes there"
        ) from error
    if len(data) != stop - start:
        raise BucketError(
            f"{found.path}: {len(data)} bytes arrived of the {stop - start} from byte {start} on, "
            "although it is as it was found: look at the network, then give the same command again"
        )
    return data


def create(address: str, content: bytes | Path) -> None:
    """Write bytes or a file of this machine as an object that is not there, whole or not at all.

    An object of the same bytes may be there: another process wrote it, or an answer was lost.
    Errors: FileExistsError for one of other bytes, which stays; OSError.
    """
    with explain_failures(address, "written"):
        try:
            if isinstance(content, bytes):
                driver().pipe_file(address, content, mode="create")
            else:
                driver().put_file(str(content), address, mode="create")
            return
        except FileExistsError:
            about = driver().info(address)
    if not _has_bytes(address, about, content):
        raise FileExistsError(
            f"{address} is there already, with other bytes, and was not written: delete it, or "
            "give another place"
        )


def _has_bytes(address: str, about: Mapping[str, Any], content: bytes | Path) -> bool:
    """Return whether an object is made of these bytes; large ones are compared by their digest."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if about["size"] != size:
        return False
    if "md5Hash" not in about:  # of an object that was put together from parts
        return read(address) == (content if isinstance(content, bytes) else content.read_bytes())
    if isinstance(content, bytes):
        found = hashlib.md5(content, usedforsecurity=False)
    else:
        with content.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(found.digest()).decode() == about["md5Hash"]


def write(address: str, content: bytes) -> None:
    """Write an object whole, in place of an earlier one. Errors: OSError."""
    with explain_failures(address, "written"):
        driver().pipe_file(address, content)


def delete(address: str) -> None:
    """Delete an object, if it is there. Errors: OSError."""
    try:
        with explain_failures(address, "deleted"):
            driver().rm_file(address)
    except MissingObjectError:
        return


def open_object(address: str) -> io.BufferedReader:
    """Open an object to read it through from its beginning.

    Errors: OSError, also when it is read.
    """
    with explain_failures(address, "read"):
        (found,) = _objects([driver().info(address)])
    return io.BufferedReader(_ObjectReader(found), BLOCK)


class _ObjectReader(io.RawIOBase):
    """An object's bytes by ranges."""

    def __init__(self, found: BucketObject) -> None:
        self._found, self._place = found, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._found.size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Errors: OSError, also where the object was written again."""
        count = max(0, min(len(buffer), self._found.size - self._place))
        buffer[:count] = read_range(self._found, self._place, self._place + count)
        self._place += count
        return count
