"""Paths as users name them: `~` is a home, and a scheme that nothing here reads is refused."""

import os
import re
from pathlib import Path, PurePosixPath

from imagen_jax.io.buckets import is_bucket

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a `Path` has made one slash of two
_REMEDIES = {
    "file": "give the path alone",
    "http": "download it, and give the file here",
    "https": "download it, and give the file here",
    "hf": "download it with `hf download`, and give the folder here",
    "gs": "mount the bucket, or copy it, and give the folder here",
}
_ELSE = "mount it, or copy it, and give the folder here"

LONGEST, LONGEST_PART = 2048, 255  # characters of a path in a folder, bytes of a name
_SNAPSHOTS, _BLOBS = "snapshots", "blobs"  # of Hugging Face's cache: MODEL/snapshots/REVISION


def local_path(path: Path | str) -> Path:
    """A path of this machine, whose `~` or `~user` is the home.

    Errors: ValueError for an address, or the home of somebody who is not known.
    """
    text = str(path)
    if scheme := _SCHEME.match(text):
        name = scheme[1].lower()
        text = f"{scheme[1]}://{text[scheme.end() :].removeprefix('/')}"  # a Path has lost one
        buckets = "" if name == "gs" else "; of buckets gs:// is read, where an option says so"
        raise ValueError(
            f"{text}: {name}:// is not read here: {_REMEDIES.get(name, _ELSE)}{buckets}"
        )
    found = os.path.expanduser(text)
    if found.startswith("~"):
        user = found.split("/")[0]
        raise ValueError(f"{text}: {user} is nobody's home here; a file of that name is ./{text}")
    return Path(found)


def require_text(path: Path) -> Path:
    """Return a path that TensorStore can be given, whose parts all are Unicode text.

    Errors: ValueError that names the part.
    """
    for part in path.parts:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{path}: {part!r} is no Unicode text: rename it") from error
    return path


def path_inside(folder: Path, name: str, *, by: object) -> Path:
    """The path of a file of `folder` that another file, `by`, names.

    Links are followed: the file has to lie in the folder, or where Hugging Face's cache keeps the
    files of its snapshots.
    Errors: ValueError that names the value and the rule; the file need not be there.
    """
    parts = PurePosixPath(name).parts
    bad = not parts or parts[0] == "/" or ".." in parts or not name.isprintable()
    if bad or len(name) > LONGEST or any(len(part.encode()) > LONGEST_PART for part in parts):
        from imagen_jax.config.sentences import shorten  # here: config reads paths itself

        raise ValueError(
            f"{by} names {shorten(name)}, which is no file in its folder: a path there begins with "
            f"no /, has neither .. nor control characters, and is no longer than {LONGEST} "
            f"characters, each part {LONGEST_PART} bytes"
        )
    root, found = (Path(os.path.realpath(path)) for path in (folder, folder / name))
    homes = [
        root,
        *(parent.parent / _BLOBS for parent in root.parents if parent.name == _SNAPSHOTS),
    ]
    if not any(found.is_relative_to(home) for home in homes):
        raise ValueError(
            f"{folder / name}, which {by} names, is a link out of that folder, to {found}: copy "
            "the file there"
        )
    return folder / name


def path_or_address(path: object) -> str:
    """Return `local_path` of a path, and the address of a bucket as it is."""
    text = str(path)
    if is_bucket(text):
        return text
    found = local_path(text)
    return str(found) if text.startswith("~") else text
