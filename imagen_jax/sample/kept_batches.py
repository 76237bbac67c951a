"""Batches of images that are kept on disk until all are done, and may be anybody's."""

import math
import os
import struct
import tokenize
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as numpy_format

from imagen_jax import limits
from imagen_jax.config.sentences import abridge
from imagen_jax.io import whole_files

KINDS = ("float32", "uint8")
AXES = 4  # images, height, width, channels
COLOURS = 3
MOST_STAGES = 64
# What NumPy's and Python's readers raise for bytes that are no array or no archive.
BROKEN = (
    *(ValueError, EOFError, OSError, OverflowError, NotImplementedError, RuntimeError),
    *(struct.error, tokenize.TokenError, zipfile.BadZipFile),
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
                return dict(_member(archive, about, file) for about in _members(archive))
        except BROKEN as error:
            if isinstance(error, ValueError) and AGAIN in str(error):
                raise
            raise _damage(file, error) from error


def describe_misfit(file: Path) -> ValueError:
    """Make the error for images that are not those which are sampled."""
    return ValueError(f"{file} holds the images of another request: {AGAIN}")


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members of an archive as NumPy writes it: few, and none of them compressed."""
    found = archive.infolist()
    if not 0 < len(found) <= MOST_STAGES:
        raise ValueError(f"it has {len(found):,} members")
    for one in found:
        if one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size:
            raise ValueError("a member is compressed")
        if not one.filename.endswith(".npy"):
            raise ValueError("a member is no array")
    if len({one.filename for one in found}) < len(found):
        raise ValueError("a member is there twice")
    return found


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
    """Read shape and dtype of an array as `numpy.save` writes it. Errors: ValueError."""
    if numpy_format.read_magic(opened) != (1, 0):
        raise ValueError("it is of another version")
    shape, by_columns, dtype = numpy_format.read_array_header_1_0(opened)
    if by_columns or dtype.name not in KINDS or not dtype.isnative:
        raise ValueError(f"it holds {abridge(str(dtype))}")
    if len(shape) != AXES or shape[-1] != COLOURS or min(shape) < 1:
        raise ValueError(f"it holds an array of shape {abridge(str(shape))}")
    return shape, dtype


def _damage(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} holds no images that were kept ({abridge(str(error))}): {AGAIN}")
