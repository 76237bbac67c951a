"""Buckets (`gs://`) through fsspec's driver: found, listed, read whole or in ranges, written whole.

The driver asks again for half a minute where that helps; what fails then is one sentence (see
`bucket_errors`). Run folders go through epath, checkpoints of T5X through TensorStore; both use
this module's addresses.
"""

import base64
import hashlib
import io
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imagen_jax import extras
from imagen_jax.io.bucket_errors import MissingObjectError, explain_failures

BUCKET = "gs://"  # how an address begins
BLOCK = 4 << 20  # bytes that are fetched at once when an object is read through
SILENCE = 30  # seconds without a byte after which the driver asks again


class BucketObject(NamedTuple):
    """An object as a bucket lists it."""

    path: str  # gs://bucket/key
    size: int  # bytes
    stamp: str  # another one once it has been written again


def is_bucket(path: object) -> bool:
    """Return whether a path is the address of a bucket or of something in one."""
    return str(path).startswith(BUCKET)


def split_address(address: str) -> tuple[str, str]:
    """Split an address into the bucket's name and the key, "" for the bucket itself."""
    bucket, _, key = address.removeprefix(BUCKET).partition("/")
    return bucket, key


def require_driver(path: object) -> None:
    """Refuse an address where its driver is missing.

    Errors: ValueError with the command that installs it.
    """
    if is_bucket(path):
        extras.require("gcsfs", f"{path}: buckets need")


def driver() -> Any:
    """Return fsspec's file system of buckets that belongs to this thread and process.

    It keeps no listings: other processes write, too. Its own errors are those of its libraries;
    the functions here explain them.
    """
    import aiohttp
    import fsspec

    logger = logging.getLogger("gcsfs")
    if logger.level == logging.NOTSET and "GCSFS_DEBUG" not in os.environ:
        logger.setLevel(logging.CRITICAL)  # it prints tracebacks of what is raised as well
    patience = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return fsspec.filesystem("gs", use_listings_cache=False, requests_timeout=patience)


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
            stamp = about.get("generation") or about.get("etag") or about.get("updated")
            yield BucketObject(BUCKET + about["name"], about["size"], str(stamp))


def read(address: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Read an object, or its bytes from `start` to before `stop`; fewer where it has fewer.

    Errors: OSError; of its kinds FileNotFoundError where there is none.
    """
    with explain_failures(address, "read"):
        return driver().cat_file(address, start=start, end=stop)


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
        size = driver().info(address)["size"]
    return io.BufferedReader(_ObjectReader(address, size), BLOCK)


class _ObjectReader(io.RawIOBase):
    """An object's bytes by ranges."""

    def __init__(self, address: str, size: int) -> None:
        self._address, self._size, self._place = address, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Errors: OSError, also where the object has become shorter."""
        count = max(0, min(len(buffer), self._size - self._place))
        if not count:
            return 0
        data = read(self._address, self._place, self._place + count)
        if len(data) != count:
            raise OSError(f"{self._address} has changed while it was read: give the command again")
        buffer[:count] = data
        self._place += count
        return count
