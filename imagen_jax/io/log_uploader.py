"""Logs of a run in a bucket: objects there can't grow line by line, so files here are copied up."""

import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from imagen_jax.io.workdir import Workdir

RESUMED = "*.jsonl"  # logs to which a later start appends


class LogUploader:
    """The folder in which a process writes a run's logs, always on this machine: `folder`.

    For a run in a bucket that is a temporary folder, which begins with the logs of earlier starts;
    `push` copies the files that have changed since, in the background.
    """

    def __init__(self, workdir: Workdir) -> None:
        self._workdir, self._pushing, self._reported = workdir, Future[None](), False
        self._pushing.set_result(None)
        if isinstance(workdir, Path):
            workdir.mkdir(parents=True, exist_ok=True)
            self.folder = workdir
            return
        self.folder = Path(tempfile.mkdtemp(prefix="imagen_logs_"))
        for file in workdir.glob(RESUMED):
            (self.folder / file.name).write_bytes(file.read_bytes())
        self._sizes = self._list_sizes()
        self._pool = ThreadPoolExecutor(1, "logs")

    def push(self) -> str:
        """Begin to copy; return the last copy's error, "" for none or one that was returned.

        A copy that is still running is not disturbed: the next one has the rest.
        """
        if isinstance(self._workdir, Path) or not self._pushing.done():
            return ""
        error = self._pushing.exception()
        self._pushing = self._pool.submit(self._copy)
        again, self._reported = self._reported, error is not None
        if error is None or again:
            return ""
        return f"logs were not copied to {self._workdir} ({error}); the next copy tries again"

    def close(self) -> str:
        """Copy the rest; return its error, "" for none."""
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
        for name, size in self._list_sizes().items():
            if self._sizes.get(name) != size:
                target = self._workdir / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((self.folder / name).read_bytes())
                self._sizes[name] = size

    def _list_sizes(self) -> dict[str, int]:
        """Bytes by the file's name below the folder; logs only grow."""
        files = (f for f in self.folder.rglob("*") if f.is_file())
        return {str(f.relative_to(self.folder)): f.stat().st_size for f in files}
