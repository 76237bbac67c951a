"""Batches of images that are kept on disk until all are done, and may be anybody's."""

import math
import os
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax import limits
from imagen_jax.config.sentences import abridge, shorten
from imagen_jax.io import whole_files, zip_members

MAGIC = b"\x93NUMPY\x01\x00"
HEADER = re.compile(
    rb"\{'descr': '(<f4|\|u1)', 'fortran_order': False, "
    rb"'shape': \(([1-9][0-9]{0,6}), ([1-9][0-9]{0,6}), ([1-9][0-9]{0,6}), 3\), \} *\n?"
)
COLOURS = 3
MOST_STAGES = 64
# What Python's reader raises for bytes that are no archive, and ours for no array.
BROKEN = (
    *(ValueError, EOFError, OSError, OverflowError, NotImplementedError, RuntimeError),
    *(struct.error, zipfile.BadZipFile),
)
AGAIN = "delete it, and its images are sampled again"


def read_batch(file: Path) -> np.ndarray:
    """Read the images of one stage, (b, h, w, 3).

    Errors: OSError; ValueError for a file that holds anything else.
    """
    with whole_files.open_file(file) as opened:
        return _checked(opened, os.fstat(opened.fileno()).st_size, file)


def read_batches(file: Path) -> dict[str, np.ndarray]:
    """Read the images of several stages by their names. Errors: as `read_batch`."""
    with whole_files.open_file(file) as opened:
        try:
            with zipfile.ZipFile(opened) as archive:
                size = os.fstat(opened.fileno()).st_size
                return dict(_member(archive, about, file) for about in _members(archive, size))
        except BROKEN as error:
            if isinstance(error, ValueError) and AGAIN in str(error):
                raise
            raise _damage(file, error) from error


def describe_misfit(file: Path) -> ValueError:
    """Make the error for images that are not those which are sampled."""
    return ValueError(f"{file} holds the images of another request: {AGAIN}")


def _members(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    """The members of an archive as NumPy writes it: few, and none of them compressed."""
    if not 0 < (count := len(archive.infolist())) <= MOST_STAGES:
        raise ValueError(f"it has {count:,} members")
    found = zip_members.stored_members(archive, size)
    if not all(name.endswith(".npy") for name in found):
        raise ValueError("a member is no array")
    return list(found.values())


def _member(archive: zipfile.ZipFile, about: zipfile.ZipInfo, file: Path) -> tuple[str, np.ndarray]:
    with archive.open(about) as opened:
        return about.filename.removesuffix(".npy"), _checked(opened, about.file_size, file)


def _checked(opened: Any, size: int, file: Path) -> np.ndarray:
    """Read an array of `size` bytes with its header, which is looked at first."""
    limits.TENSOR_BYTES.check(size, f"{file} has")
    try:
        shape, dtype = _header(opened)
        wanted = math.prod(shape) * dtype.itemsize
        data = opened.read(min(wanted, size))
        if len(data) != wanted or opened.read(1):
            raise ValueError(f"it states {wanted:,} bytes of images and has others")
    except BROKEN as error:
        raise _damage(file, error) from error
    images = np.frombuffer(bytearray(data), dtype).reshape(shape)
    if not np.isfinite(images).all():
        raise _damage(file, ValueError("some are not finite"))
    return images


def _header(opened: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Read shape and dtype of images as `numpy.save` writes them. Errors: ValueError.

    NumPy's own reader parses any Python literal, which ends in any of Python's errors.
    """
    start = opened.read(len(MAGIC) + 2)
    text = opened.read(int.from_bytes(start[len(MAGIC) :], "little"))
    found = HEADER.fullmatch(text)
    if not start.startswith(MAGIC) or found is None:
        raise ValueError(f"its header is {shorten(start + text)}")
    return (*map(int, found.groups()[1:]), COLOURS), np.dtype(found[1].decode())


def _damage(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} holds no images that were kept ({abridge(str(error))}): {AGAIN}")
