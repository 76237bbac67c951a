"""Buckets (`gs://`) through fsspec's driver: found, listed, and read whole or in ranges.

Run folders go through epath, checkpoints of T5X through TensorStore; both use this module's
addresses.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from imagen_jax import extras

BUCKET = "gs://"  # how an address begins
BLOCK = 4 << 20  # bytes that are fetched at once when an object is read through


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
    """Return fsspec's file system of buckets that belongs to this thread and process."""
    import fsspec

    return fsspec.filesystem("gs")


def glob(pattern: str) -> Iterator[BucketObject]:
    """List the objects whose addresses match a pattern."""
    return _objects(driver().glob(pattern, detail=True))


def list_below(folder: str) -> Iterator[BucketObject]:
    """List the objects below an address."""
    return _objects(driver().find(folder, detail=True))


def _objects(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[BucketObject]:
    for path, about in entries.items():
        if about["type"] == "file":
            stamp = about.get("generation") or about.get("etag") or about.get("updated")
            yield BucketObject(BUCKET + path, about["size"], str(stamp))


def read(address: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Read an object, or its bytes from `start` to before `stop`; fewer where it has fewer."""
    return driver().cat_file(address, start=start, end=stop)


def open_object(address: str) -> Any:
    """Open an object to read it through from its beginning."""
    return driver().open(address, "rb", block_size=BLOCK, cache_type="readahead")
