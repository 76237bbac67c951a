"""Processes that read Parquet for this one: `parquet_worker` is what runs there.

They start when there is something to read, as many as threads read at once, and wait for more
afterwards. They end with this process. A file that makes the library abort, or ask for all memory,
ends its reader alone.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from imagen_jax import limits
from imagen_jax.io.errors import CorruptDataError

PROGRAM = "import sys; sys.path.append({!r}); from imagen_jax.data.sources import parquet_worker; "
PROGRAM += "parquet_worker.serve()"
# Little memory is then set aside that is not used, and a limit of it means something.
ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
READ_THERE = ("IMAGEN_MAX_", "STORAGE_")  # variables that a reader reads when it starts
PIPE = 1 << 20  # bytes that the pipes hold: the fewer turns of the two processes
SLOWEST = 1 << 20  # bytes a second: a file of more has as much longer for an answer
Read = TypeVar("Read")
SAID = 500  # bytes of the end of what a reader printed


class ParquetReader:
    """One process that reads; one thread at a time may ask it."""

    def __init__(self) -> None:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        program = PROGRAM.format(str(Path(__file__).parents[3]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            pipesize=PIPE,
            process_group=0,  # Ctrl-C is for us
        )
        self._finalizer = weakref.finalize(self, _end, self._process, self._printed)
        self.is_idle = False
        self._late = 0  # seconds after which it was ended, if it was
        if not self._stream(self._process.stdout).readline():
            self._process.wait()
            said = self._last_words()
            self.close()
            raise OSError(f"the process that reads Parquet did not start: {said}")
        self.is_idle = True

    def ask(self, request: dict[str, Any]) -> Iterator[Any]:
        """Yield the answer: values, and tables of Arrow.

        Errors: CorruptDataError for a file that cannot be read, or whose reading ended the process;
        ValueError for one that does not fit; OSError.
        """
        self.is_idle = False
        stdin, stdout = self._stream(self._process.stdin), self._stream(self._process.stdout)
        seconds = float(limits.PARQUET_SECONDS.value())
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            while not (message := self._within(seconds, self._read, stdout)).get("end"):
                if "error" in message:
                    self.is_idle = message["error"] != "memory"  # after which it ends
                    _raise(message)
                if "bytes" in message:
                    seconds += message["bytes"] / SLOWEST
                    continue
                is_table = "table" in message
                yield self._within(seconds, _table, stdout) if is_table else message["value"]
            self.is_idle = True
        except (BrokenPipeError, EOFError) as error:
            raise CorruptDataError(self._how_it_ended()) from error

    def close(self) -> None:
        """End the process."""
        self.is_idle = False
        self._finalizer()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def _within(self, seconds: float, read: Callable[[IO[bytes]], Read], out: IO[bytes]) -> Read:
        """Read from the process, which is ended where that takes longer."""
        timer = threading.Timer(seconds, self._end_late, (seconds,))
        timer.daemon = True
        timer.start()
        try:
            return read(out)
        finally:
            timer.cancel()

    def _end_late(self, seconds: float) -> None:
        self._late = round(seconds)
        self._process.kill()

    def _read(self, stdout: IO[bytes]) -> dict[str, Any]:
        """Errors: EOFError where the process has ended."""
        line = stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)  # of our own process, whose memory is bounded

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if self._late:
            limit = limits.PARQUET_SECONDS
            return (
                f"the process that reads it gave no answer for {self._late:,} seconds; if you "
                f"trust it, set {limit.variable} to more than {limit.value()}"
            )
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        return f"the library that reads it ended with {how}: {self._last_words()}"

    def _last_words(self) -> str:
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, size - SAID))
        return " ".join(self._printed.read().decode(errors="replace").split())

    @staticmethod
    def _stream(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None  # a pipe was asked for
        return stream


def _table(stdout: IO[bytes]) -> Any:
    """Read a table. Errors: EOFError where the process ended within it."""
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(stdout).read_all()
    except (ValueError, OSError) as error:
        raise EOFError from error


def _raise(message: dict[str, Any]) -> NoReturn:
    """Raise what the process met."""
    said = message["said"]
    if message["error"] in ("damaged", "memory"):
        raise CorruptDataError(said)
    if message["error"] == "refused":
        raise ValueError(said)
    number = message["number"]
    raise OSError(said) if number is None else OSError(number, os.strerror(number), message["path"])


def _end(process: subprocess.Popen[bytes], printed: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, printed):
        if stream is not None:
            with suppress(BrokenPipeError):  # of what it was asked last, and did not read
                stream.close()


class ReaderPool:
    """The readers that nobody asks at present."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[Any, ...], list[ParquetReader]] = {}

    @contextmanager
    def borrow(self) -> Iterator[ParquetReader]:
        """Lend one that waits, or a new one."""
        # A fork has its parent's pipes; settings are read when a reader starts.
        settings = sorted(item for item in os.environ.items() if item[0].startswith(READ_THERE))
        key = (os.getpid(), *settings)
        with self._lock:
            waiting = self._idle.setdefault(key, [])
            reader = waiting.pop() if waiting else None
        if reader is not None and reader.has_ended():
            reader.close()
            reader = None
        reader = reader or ParquetReader()
        try:
            yield reader
        finally:
            if reader.is_idle:
                with self._lock:
                    waiting.append(reader)
            else:
                reader.close()


_POOL = ReaderPool()


def ask(task: str, path: str, **more: Any) -> Iterator[Any]:
    """Ask a reader for a task of `parquet_worker` about a file; yield what it answers.

    Errors: as `ParquetReader.ask`.
    """
    memory = limits.PARQUET_MEMORY.value()
    with _POOL.borrow() as reader:
        yield from reader.ask({"task": task, "path": path, "memory": memory, **more})
