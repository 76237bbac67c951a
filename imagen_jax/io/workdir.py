"""A run's folder: on this machine, or in a bucket (`gs://`), through the libraries' own drivers.

Checkpoints and config go to a bucket directly; logs by way of `log_uploader`.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from etils import epath

from imagen_jax.io import buckets
from imagen_jax.io.atomic import check_no_link, write_atomic
from imagen_jax.io.bucket_errors import explain_failures
from imagen_jax.io.paths import local_path

Workdir: TypeAlias = Path | epath.Path  # local | in a bucket


def as_path(place: str | Workdir) -> Workdir:
    """The folder that a user named.

    Errors: ValueError where the driver for buckets is missing, for another address, or for none.
    """
    if not str(place):
        raise ValueError("the name of the folder is empty: give one, or . for the current folder")
    if not buckets.is_bucket(place):
        return local_path(str(place))
    buckets.require_driver(place)
    return epath.Path(str(place).rstrip("/"))


def write(file: Workdir, text: str) -> None:
    """Write a file that is there whole or, if this is cut short, not at all.

    Errors: OSError that names the file.
    """
    if not isinstance(file, Path):
        with explain_failures(str(file), "written"):
            file.write_text(text)  # as objects are
        return
    write_atomic(file, text)


def write_new(folder: Workdir, name: str, text: str) -> Workdir:
    """Write to the first of name.format(1), name.format(2), ... that is free; which one it was.

    Errors: those of the disk or of the bucket's driver.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = (folder / name.format(number) for number in itertools.count(1))
    file = next(place for place in places if not _is_there(place))
    if not isinstance(file, Path):
        file.write_text(text)
        return file
    try:
        with file.open("x") as opened:
            opened.write(text)
    except FileExistsError:  # another process was faster
        return write_new(folder, name, text)
    return file


def _is_there(file: Workdir) -> bool:
    return os.path.lexists(file) if isinstance(file, Path) else file.exists()


def move(folder: Workdir, target: Workdir) -> None:
    """Move a folder; in a bucket file by file, as folders are nothing but the files' names."""
    if isinstance(folder, Path):
        check_no_link(target.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return
    for file in list(_files(folder)):
        file.copy(target / file.relative_to(folder))
    folder.rmtree()


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder in a bucket; epath's own `walk` loses the bucket's scheme."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry
