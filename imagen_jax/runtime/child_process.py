"""A child process: its output live and the end of it kept, signals passed on."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

PROGRAM = "import sys; sys.path.append({!r}); from imagen_jax.cli import main; main()"
KEPT = 65536  # bytes of the end of stderr
_LEFT = 5.0  # seconds: what the child left in the pipe is read by then
_REDRAWN = re.compile(rb"[^\n]*\r(?=[^\n])")  # earlier states of a progress bar


def imagen_command(*arguments: str) -> list[str]:
    """The command `imagen ARGUMENTS`, which runs nothing that lies in the current folder (-P).

    It is found where this package is, also where that was not installed.
    """
    program = PROGRAM.format(str(Path(__file__).parents[2]))
    return [sys.executable, "-P", "-c", program, *arguments]


class ChildProcess:
    """A running command in a process group of its own.

    So Ctrl-C reaches it once, from us, and its own children can be ended with it. Where our stderr
    is a terminal the child has a pseudo-terminal, so that its progress bars stay bars.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._tail = b""
        self._terminal = sys.stderr.isatty()
        parent_end, child_end = os.openpty() if self._terminal else os.pipe()
        if self._terminal:
            tty.setraw(child_end)  # our own terminal does the line ends
            _copy_size(parent_end)
        try:
            self.process = subprocess.Popen(
                command,
                env=dict(environment),
                stderr=child_end,
                stdout=child_end if self._terminal and sys.stdout.isatty() else None,
                process_group=0,
            )
        except BaseException:
            os.close(parent_end)
            raise
        finally:
            os.close(child_end)
        self._parent_end = parent_end
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def send(self, number: int) -> None:
        """Pass a signal on; a child that has ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def resize(self) -> None:
        """Tell the child that the terminal has another size."""
        if self._terminal:
            _copy_size(self._parent_end)
            self.send(signal.SIGWINCH)

    def wait(self) -> int:
        """The exit code, as shells count: 128 plus the number of a signal that ended it."""
        code = self.process.wait()
        if code:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)  # what it started and left behind
        self._reader.join(_LEFT)
        return code if code >= 0 else 128 - code

    def output(self) -> str:
        """The end of its stderr; of a progress bar, what was seen last."""
        return _REDRAWN.sub(b"", self._tail).decode(errors="replace").replace("\r", "")

    def _pass_on(self) -> None:
        shown: TextIO | None = sys.stderr if hasattr(sys.stderr, "buffer") else sys.__stderr__
        assert shown is not None  # a command line's process has one
        out = shown.buffer
        with open(self._parent_end, "rb", buffering=0) as stream, contextlib.suppress(OSError):
            while some := stream.read(4096):  # a pseudo-terminal ends with an OSError
                self._tail = (self._tail + some)[-KEPT:]
                with contextlib.suppress(OSError, ValueError):  # nobody reads us any more
                    out.write(some)
                    out.flush()


def _copy_size(terminal: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
