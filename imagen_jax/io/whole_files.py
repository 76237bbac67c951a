"""Files that are read whole: never a device or a pipe, and no more than a limit allows."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from imagen_jax import limits
from imagen_jax.limits import Limit

PIECE = 1 << 16  # bytes


def read_whole(file: Path | str, limit: Limit = limits.FILE_BYTES) -> bytes:
    """Read all of a file of this machine.

    Errors: as `open_file`; ValueError for more bytes than `limit` allows.
    """
    with open_file(file) as opened:
        size, most = os.fstat(opened.fileno()).st_size, limit.value()
        limit.check(size, f"{file} has")
        data = opened.read(size)
        while len(data) <= most and (more := opened.read(PIECE)):  # it has grown, or says no size
            data += more
    limit.check(len(data), f"{file} has at least")
    return data


def open_file(file: Path | str) -> BinaryIO:
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
