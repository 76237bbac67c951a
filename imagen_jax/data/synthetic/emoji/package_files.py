"""Files of a package that lies here, as a tar of npm's registry or unpacked: data, never run.

Nothing is written to a disk, and of their names only the last parts are looked at.
"""

import gzip
import io
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagen_jax import limits
from imagen_jax.data.sources import tar_members
from imagen_jax.io import whole_files

GZIP = b"\x1f\x8b"
BROKEN = (*tar_members.BROKEN, OSError, zlib.error)


class UnpackedBytes:
    """A stream of unpacked bytes: there may not be more of them than `limits.FILE_BYTES`."""

    def __init__(self, file: io.BufferedIOBase, path: Path) -> None:
        self._file, self._path, self._count = file, path, 0

    def read(self, size: int) -> bytes:
        """Read bytes. Errors: LimitError for too many in all."""
        data = self._file.read(size)
        self._count += len(data)
        _check_total(self._count, self._path)
        return data


class LimitError(Exception):
    """A limit is exceeded: tarfile takes a ValueError for a damaged header."""


def read_files(path: Path, wanted: re.Pattern[str]) -> dict[str, bytes]:
    """The files whose path in the package, with `/`, ends as `wanted` says; by that path.

    `path` is a tar, gzipped or not, or a folder. Links, devices and sparse files are left out.
    Errors: FileNotFoundError where there is nothing; ValueError for what is no tar, was cut short,
    or has more bytes than `limits.FILE_BYTES`, unpacked and all files together.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is neither a file nor a folder: name a package there")
    found = dict(_in_folder(path, wanted) if path.is_dir() else _in_tar(path, wanted))
    return {name: found[name] for name in sorted(found)}


def _in_folder(folder: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    total = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "node_modules"]  # packages of others
        for name in files:
            file = Path(parent) / name
            inside = file.relative_to(folder).as_posix()
            if wanted.search(inside) and stat.S_ISREG(file.lstat().st_mode):
                data = whole_files.read_whole(file)
                total += len(data)
                try:
                    _check_total(total, folder)
                except LimitError as error:
                    raise ValueError(str(error)) from error
                yield inside, data


def _in_tar(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with whole_files.open_file(path) as packed:
        compressed = packed.read(len(GZIP)) == GZIP
        packed.seek(0)
        plain: Any = gzip.GzipFile(fileobj=packed) if compressed else packed
        stream = UnpackedBytes(plain, path)
        try:
            with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as tar:  # type: ignore[call-overload]
                for member in tar:
                    tar.members.clear()  # or all of them stay in memory
                    # A sparse file states any size: the rest of it is zeros.
                    is_whole = member.isreg() and member.sparse is None
                    if is_whole and wanted.search(member.name):
                        content = tar.extractfile(member)
                        assert content is not None  # of a regular file
                        yield member.name, content.read()
        except LimitError as error:
            raise ValueError(str(error)) from error
        except BROKEN as error:
            raise ValueError(
                f"{path} is no tar that can be read to its end ({error}): fetch the package again"
            ) from error


def _check_total(count: int, path: Path) -> None:
    try:
        limits.FILE_BYTES.check(count, f"{path} has, unpacked, at least")
    except ValueError as error:
        raise LimitError(str(error)) from error
