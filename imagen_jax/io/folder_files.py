"""The files of a folder, here or in a bucket (`gs://`): each appears whole or not at all.

In a bucket a file that a function fills is written here first, in a temporary folder.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from imagen_jax.io import buckets, whole_files
from imagen_jax.io.atomic import Content, create_atomic, write_atomic
from imagen_jax.io.workdir import Workdir


def make_folder(folder: Workdir) -> None:
    """Make a folder and those above it; a bucket has none. Errors: OSError."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def list_files(folder: Workdir) -> dict[str, int]:
    """Return the sizes in bytes of a folder's files by name, in one request; {} where it is none.

    Errors: OSError.
    """
    if not isinstance(folder, Path):
        return {one.path.rpartition("/")[2]: one.size for one in buckets.list_folder(str(folder))}
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process deleted it
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def read_text(file: Workdir) -> str:
    """Read a file.

    Errors: OSError; of its kinds FileNotFoundError where there is none; ValueError for no text, or
    too large a file.
    """
    data = whole_files.read_whole(str(file))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is no UTF-8 text, from byte {error.start} on: it was damaged or is another "
            "file; copy it again"
        ) from error


def create(file: Workdir, content: Content) -> None:
    """Write a file that is not there; one of the same bytes may be.

    Errors: FileExistsError for one of other bytes, which stays; OSError; what `content` raises.
    """
    if isinstance(file, Path):
        create_atomic(file, content)
    elif callable(content):
        with tempfile.TemporaryDirectory(prefix="imagen_upload_") as folder:
            content(Path(folder) / file.name)
            buckets.create(str(file), Path(folder) / file.name)
    else:
        buckets.create(str(file), content.encode() if isinstance(content, str) else content)


def write(file: Workdir, text: str) -> None:
    """Write a file, in place of an earlier one. Errors: OSError."""
    if isinstance(file, Path):
        write_atomic(file, text)
    else:
        buckets.write(str(file), text.encode())


def delete(file: Workdir) -> None:
    """Delete a file, if it is there. Errors: OSError."""
    if isinstance(file, Path):
        file.unlink(missing_ok=True)
    else:
        buckets.delete(str(file))


@contextlib.contextmanager
def local_copy(file: Workdir) -> Iterator[Path]:
    """Give a small file's path on this machine: its own, or a copy's for as long as this lasts.

    Errors: OSError.
    """
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="imagen_download_") as folder:
        copy = Path(folder) / file.name
        copy.write_bytes(whole_files.read_whole(str(file)))
        yield copy
