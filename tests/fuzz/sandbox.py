"""The bounds within which a parser has to stay: a folder, memory, and no program but itself."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

MEMORY = 2 << 30  # bytes beyond what the process has when it begins
PATHS = {  # events whose first arguments are paths that are changed, and how many of them
    **dict.fromkeys(("os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr"), 1),
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"), 1),
    **dict.fromkeys(("os.rename", "os.link"), 2),
}
OF_LINKS = frozenset({"os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link"})  # not followed
FORBIDDEN = (
    *("subprocess.", "os.exec", "os.posix_spawn", "os.fork", "os.system", "os.kill", "pty."),
    *("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.", "ftplib.", "smtplib."),
    *("pickle.find_class", "webbrowser.", "ctypes.dlopen"),
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
READABLE = (
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/urandom",
    "/usr",
    "/lib",
)  # of the system; and Python's own folders


class EscapeError(BaseException):
    """A parser did what no file may make it do; no `except Exception` takes it for a fault."""


@dataclass
class Sandbox:
    """What a parser may do; `escapes` is what else it tried while it was watched."""

    readable: tuple[str, ...]
    folders: tuple[str, ...] = ()  # that may be written to
    linked: tuple[str, ...] = ()  # that links may lead to, to be read
    allows: frozenset[str] = frozenset()  # events that are the parser's own
    escapes: list[str] = field(default_factory=list)
    is_watching: bool = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Refuse and note escapes in the block, of all threads."""
        self.escapes.clear()
        self.is_watching = True
        try:
            yield
        finally:
            self.is_watching = False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take part in Python's audit: see the standard library's table of events."""
        if not self.is_watching or event in self.allows:
            return
        if found := self._escape(event, arguments):
            self._refuse(found)

    def find_spec(self, name: str, *_: object) -> None:
        """Take part in the search for modules, as the first of `sys.meta_path`; find none."""
        if self.is_watching and name.partition(".")[0] not in installed():
            self._refuse(f"import of {name!r}")

    def _refuse(self, found: str) -> None:
        self.escapes.append(found)
        raise EscapeError(found)

    def _escape(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event == "open":
            path, _, flags = arguments
            return self._opened(path, flags if isinstance(flags, int) else 0)
        if event in PATHS:
            paths = arguments[: PATHS[event]]
            if event in OF_LINKS:
                paths = tuple(os.path.dirname(os.path.abspath(os.fsdecode(p))) for p in paths)
            outside = [path for path in paths if not self._is_inside(path, self.folders)]
            return f"{event} of {outside[0]!r}" if outside else ""
        if event == "os.symlink":
            return self._escape("os.rename", (arguments[1], arguments[1]))
        return f"{event}{arguments!r}" if event.startswith(FORBIDDEN) else ""

    def _opened(self, path: Any, flags: int) -> str:
        if self._is_inside(path, self.folders):
            return ""
        if flags & WRITES and os.path.islink(path):
            return ""  # an opener may refuse it: what is written through it is found afterwards
        if flags & WRITES and os.fsdecode(path) != os.devnull:
            return f"{path!r} is opened for writing"
        return "" if self._is_inside(path, self.readable + self.linked) else f"{path!r} is read"

    @staticmethod
    def _is_inside(path: Any, folders: tuple[str, ...]) -> bool:
        if isinstance(path, int):
            return True
        real = os.path.realpath(os.fsdecode(path))
        return any(real == folder or real.startswith(f"{folder}/") for folder in folders)


def make_sandbox() -> Sandbox:
    """A sandbox that Python's audit asks from now on, as long as the process lives."""
    packages = Path(__file__).parents[2]
    given = (sys.prefix, sys.base_prefix, str(packages / "imagen_jax"), *READABLE)
    made = Sandbox(tuple(map(os.path.realpath, given)))
    installed()
    sys.addaudithook(made.audit)
    sys.meta_path.insert(0, made)  # type: ignore[arg-type]
    return made


_INSTALLED: set[str] = set()


def installed() -> set[str]:
    """Top-level names of installed packages."""
    if not _INSTALLED:
        _INSTALLED.update(sys.stdlib_module_names, metadata.packages_distributions(), sys.modules)
        _INSTALLED.add("tensorflow")  # which TensorFlow Datasets looks for
    return _INSTALLED


def limit_memory() -> None:
    """Allow `MEMORY` bytes of addresses more than the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    now = pages * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))


def peak_memory() -> int:
    """Bytes that were resident at most; `ru_maxrss` has those of the parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
