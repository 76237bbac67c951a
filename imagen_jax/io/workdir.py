"""A run's folder: on this machine, or in a bucket (`gs://`), through the libraries' own drivers.

Checkpoints and config go to a bucket directly. Logs grow line by line, which objects in a bucket
can't: they are written here and copied up.
"""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from etils import epath

from imagen_jax.io import buckets
from imagen_jax.io.atomic import write_atomic
from imagen_jax.io.paths import local_path

Workdir = Path | epath.Path  # local | in a bucket

KEPT = "*.jsonl"  # logs that a later start goes on with


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
        try:
            file.write_text(text)  # as objects are
        except OSError as error:
            reason = str(error).strip().replace("\n", " ")
            raise OSError(
                f"{file} was not written ({reason}): check the bucket's name and your rights there"
            ) from error
        return
    write_atomic(file, text)


def write_new(folder: Workdir, name: str, text: str) -> Workdir:
    """Write to the first of name.format(1), name.format(2), ... that is free; which one it was.

    Errors: those of the disk or of the bucket's driver.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = next(f for n in itertools.count(1) if not (f := folder / name.format(n)).exists())
    if not isinstance(file, Path):
        file.write_text(text)
        return file
    try:
        with file.open("x") as opened:
            opened.write(text)
    except FileExistsError:  # another process was faster
        return write_new(folder, name, text)
    return file


def move(folder: Workdir, target: Workdir) -> None:
    """Move a folder; in a bucket file by file, as folders are nothing but the files' names."""
    if isinstance(folder, Path):
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


class LogUploader:
    """Where a process writes a run's logs: `folder`, always on this machine.

    In a bucket's case that is a temporary folder, which begins with the logs of earlier starts;
    `push` copies what has changed since, in the background.
    """

    def __init__(self, workdir: Workdir) -> None:
        self._workdir, self._pushing, self._told = workdir, Future[None](), False
        self._pushing.set_result(None)
        if isinstance(workdir, Path):
            workdir.mkdir(parents=True, exist_ok=True)
            self.folder = workdir
            return
        self.folder = Path(tempfile.mkdtemp(prefix="imagen_logs_"))
        for file in workdir.glob(KEPT):
            (self.folder / file.name).write_bytes(file.read_bytes())
        self._sizes = self._present()
        self._pool = ThreadPoolExecutor(1, "logs")

    def push(self) -> str:
        """Begin to copy; what went wrong with the copy before, "" if nothing did or it was told.

        A copy that is still going on is not disturbed: the next one has the rest.
        """
        if isinstance(self._workdir, Path) or not self._pushing.done():
            return ""
        error = self._pushing.exception()
        self._pushing = self._pool.submit(self._copy)
        again, self._told = self._told, error is not None
        if error is None or again:
            return ""
        return f"logs were not copied to {self._workdir} ({error}); it is tried again"

    def close(self) -> str:
        """Copy the last of it; what went wrong."""
        if isinstance(self._workdir, Path):
            return ""
        self._pool.shutdown()
        try:
            self._copy()
        except Exception as error:  # the drivers' errors have no common kind
            return f"logs were not copied to {self._workdir} ({error}); they are in {self.folder}"
        shutil.rmtree(self.folder)
        return ""

    def _copy(self) -> None:
        for name, size in self._present().items():
            if self._sizes.get(name) != size:
                target = self._workdir / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((self.folder / name).read_bytes())
                self._sizes[name] = size

    def _present(self) -> dict[str, int]:
        """Bytes by the file's name below the folder; logs only grow."""
        files = (f for f in self.folder.rglob("*") if f.is_file())
        return {str(f.relative_to(self.folder)): f.stat().st_size for f in files}
