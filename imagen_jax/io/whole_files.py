"""Files that are read whole, here or in a bucket (`gs://`): no device, no pipe, within a limit."""

import os
import stat
from typing import BinaryIO

from imagen_jax import limits
from imagen_jax.io import buckets
from imagen_jax.limits import Limit

PIECE = 1 << 16  # bytes


def read_whole(file: os.PathLike[str] | str, limit: Limit = limits.FILE_BYTES) -> bytes:
    """Read all of a file, in one request of a bucket.

    Errors: as `open_file`; ValueError for more bytes than `limit` allows.
    """
    if buckets.is_bucket(file):
        return buckets.read_whole(str(file), limit)
    with open_file(file) as opened:
        size, most = os.fstat(opened.fileno()).st_size, limit.value()
        limit.check(size, f"{file} has")
        data = opened.read(size)
        while len(data) <= most and (more := opened.read(PIECE)):  # it has grown, or says no size
            data += more
    limit.check(len(data), f"{file} has at least")
    return data


def read_beginning(file: os.PathLike[str] | str, most: int) -> bytes:
    """Read a file's first bytes, `most` or all that it has. Errors: as `open_file`."""
    if buckets.is_bucket(file):
        return buckets.read_beginning(str(file), most)
    with open_file(file) as opened:
        return opened.read(most)


def open_file(file: os.PathLike[str] | str) -> BinaryIO:
    """Open a file of this machine for reading.

    Errors: OSError, also for what is there and no file, such as a pipe, which nobody may fill.
    """
    # A pipe that nobody writes to would not be opened, but for this flag.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(f"{file} is no file, but {_kind(mode)}: give a file")
    return open(descriptor, "rb")


def _kind(mode: int) -> str:
    """Say what is no file."""
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device"
