"""Paths as users name them: `~` is a home, and a scheme that nothing here reads is refused."""

import os
import re
from pathlib import Path

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


def path_or_address(path: object) -> str:
    """Return `local_path` of a path, and the address of a bucket as it is."""
    text = str(path)
    if is_bucket(text):
        return text
    found = local_path(text)
    return str(found) if text.startswith("~") else text
