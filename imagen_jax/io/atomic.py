"""Files and folders that appear complete or not at all: written under another name, then renamed.

Nothing is synced to the disk: a process that is killed leaves the old file or the new one, and
perhaps a `*.tmp` next to it; a machine that loses its power may leave less.

A folder may be shared with others, who put links there. One under a file's name is replaced, and
what it leads to stays; one under the name of a subfolder is refused, as it is under that of a file
that grows. The folder that a user named may be a link.
"""

import contextlib
import errno
import filecmp
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

Content = bytes | str | Callable[[Path], object]


def write_atomic(file: Path, content: Content) -> None:
    """Write a file, in place of an earlier one; its folder has to exist.

    `content` is the file's bytes or text, or a function that writes the file at the path that it is
    given. That path is of this call alone: another process that writes the same file by mistake
    does not disturb it.
    Errors: OSError, or what `content` raises; the earlier file then stays as it was.
    """
    with _written(file, content) as temporary:
        temporary.replace(file)


def create_atomic(file: Path, content: Content) -> None:
    """Write a file that is not there, as `write_atomic` does; one of the same bytes may be.

    Errors: FileExistsError for one of other bytes, which stays; OSError, or what `content` raises.
    """
    with _written(file, content) as temporary:
        try:
            os.link(temporary, file)  # fails where there is one, as renaming does not
        except FileExistsError:
            pass
        except OSError:  # a file system without links, such as a mounted bucket
            if not file.exists():
                temporary.replace(file)
                return
        if file.is_symlink():
            raise FileExistsError(f"{file} is a link, and was not written: remove it")
        if not filecmp.cmp(temporary, file, shallow=False):
            raise FileExistsError(
                f"{file} is there already, with other bytes, and was not written: delete it, or "
                "give another place"
            )


@contextlib.contextmanager
def _written(file: Path, content: Content) -> Iterator[Path]:
    """A file with that content next to `file`, until this is over."""
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}.tmp")
    # Others who may write in this folder can't have put a link of that name there.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(descriptor, "wb" if isinstance(content, bytes) else "w") as opened:
            if isinstance(content, bytes | str):
                opened.write(content)
        if not isinstance(content, bytes | str):
            content(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def make_subfolder(folder: Path, name: str) -> Path:
    """Make a folder in one that a user named, unless it is there.

    Errors: ValueError for a link, through which files would be written elsewhere; OSError.
    """
    made = folder / name
    check_no_link(made)
    made.mkdir(parents=True, exist_ok=True)
    check_no_link(made)
    return made


def check_no_link(folder: Path) -> None:
    """Refuse a subfolder that is a link. Errors: ValueError."""
    if folder.is_symlink():
        raise ValueError(
            f"{folder} is a link, to {os.path.realpath(folder)}, and nothing is written through "
            "it: remove it, or give another folder"
        )


def check_names(
    folder: Path, *, files: Collection[str] = (), folders: Collection[str] = ()
) -> None:
    """Refuse folders under the names that files are to have in a folder, and the other way round.

    Nor may a folder that is to be made be a link.
    Errors: ValueError that names one; OSError.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder and entry.name in files:
                raise ValueError(
                    f"{entry.path} is a folder, and a file of that name is to be written: move it "
                    "away, or give another folder"
                )
            if entry.name in folders:
                check_no_link(Path(entry.path))
            if not is_folder and entry.name in folders:
                raise ValueError(
                    f"{entry.path} is no folder, and one of that name is to be made: move it away, "
                    "or give another folder"
                )


def refuse_link(path: str, flags: int) -> int:
    """Open a file unless it is a link; an `opener` of `open`. Errors: OSError."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(
            errno.ELOOP, "it is a link, which may lead anywhere: remove it", path
        ) from error


def check_new(folder: Path, *, needed: int = 0) -> None:
    """Refuse a folder to make that is there, or that has less room than `needed` bytes.

    Errors: FileExistsError; OSError.
    """
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} exists; give another folder, or delete it first")
    there = next(place for place in folder.absolute().parents if place.is_dir())
    if needed > (free := shutil.disk_usage(there).free):
        raise OSError(
            f"{folder} takes {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free there: "
            "give a folder on another disk"
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write in, which becomes `folder` at the end, unless something is raised.

    Errors: FileExistsError when `folder` exists.
    """
    folder = folder.absolute()
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        # One level deeper: a temporary folder itself is closed to all but its owner.
        unfinished = Path(temporary) / folder.name
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(folder)
