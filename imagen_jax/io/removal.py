"""Folders are removed with all that is in them, however deep it lies, and no link is followed."""

import os
import secrets
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_folder(folder: Path) -> None:
    """Remove a folder and what is in it.

    `shutil.rmtree` goes down in itself, and holds a descriptor a level: anybody's folders in each
    other end it. Here a folder's subfolders move up beside it before it is removed.
    Errors: OSError, also for a link; what can't be removed stays.
    """
    top = os.open(folder, _FOLDER)
    try:
        while folders := _empty(top):
            for name in folders:
                _flatten(name, top)
    finally:
        os.close(top)
    os.rmdir(folder)


def _empty(descriptor: int) -> list[str]:
    """Remove the files of an open folder, and name its subfolders."""
    folders = []
    with os.scandir(descriptor) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=descriptor)
    return folders


def _flatten(name: str, top: int) -> None:
    """Remove a subfolder of the open folder `top`, and move its own subfolders there."""
    inside = os.open(name, _FOLDER, dir_fd=top)
    try:
        for below in _empty(inside):
            os.rename(below, secrets.token_hex(16), src_dir_fd=inside, dst_dir_fd=top)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=top)
