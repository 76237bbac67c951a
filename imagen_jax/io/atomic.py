"""A new folder that appears complete or not at all."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A place to write what becomes `folder` at the end, unless something is raised.

    Errors: FileExistsError when `folder` exists.
    """
    folder = folder.absolute()
    if folder.exists():
        raise FileExistsError(f"{folder} exists; give another folder, or delete it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        # One level deeper: a temporary folder itself is closed to all but its owner.
        unfinished = Path(temporary) / folder.name
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(folder)
