"""Parsers that do what none may do, for the tests of the runner."""

import ctypes
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fuzz.mutator import Files
from fuzz.target import Target

from imagen_jax.io import json_reader

LIBRARY = ctypes.CDLL(None)
HONEST = b'{"a": 1, "b": [2, 3]}'


def _corpus(_: Path) -> list[Files]:
    return [{"file": HONEST}]


def _read(folder: Path) -> bytes:
    file = folder / "file"
    return file.read_bytes() if file.is_file() else b""


def _parse_well(folder: Path) -> None:
    json_reader.parse_object(_read(folder), where="file", remedy="write it again")


def _unless_honest(do: Callable[[Path], object]) -> Callable[[Path], None]:
    """A parser that is sound as long as its input is the honest one."""

    def parse(folder: Path) -> None:
        if _read(folder) != HONEST:
            do(folder)

    return parse


def _hang(_: Path) -> None:
    time.sleep(3600)


def _spin(_: Path) -> None:
    LIBRARY.pause()  # no signal handler of Python's runs


def _allocate(_: Path) -> None:
    bytearray(3 << 30)


def _write_outside(folder: Path) -> None:
    (folder.parent / "outside" / "more").write_bytes(b"x")


def _write_outside_unseen(folder: Path) -> None:
    LIBRARY.mkdir(str(folder.parent / "unseen").encode(), 0o700)


def _write_through_link(folder: Path) -> None:
    (folder / "link").symlink_to("../linked/secret")
    (folder / "link").write_bytes(b"x")


def _swallow(folder: Path) -> None:
    try:
        _write_outside(folder)
    except BaseException as error:
        raise ValueError("a sentence") from error


def _read_outside(folder: Path) -> None:
    (folder.parent / "outside" / "secret").read_bytes()


def _leak(_: Path) -> None:
    {}["a"]


def _leak_value_error(folder: Path) -> None:
    json.loads("{")


def _leak_from_the_package(_: Path) -> None:
    from imagen_jax.config import sentences

    sentences.shorten()  # type: ignore[call-arg]


def _abort(_: Path) -> None:
    os.abort()


def _leave(_: Path) -> None:
    os._exit(0)


def _import(_: Path) -> None:
    importlib.import_module("stranger.features")


def _spawn(_: Path) -> None:
    subprocess.run([sys.executable, "-c", "0"], check=True)


FAULTY: dict[str, tuple[Callable[[Path], object], str]] = {
    "hangs": (_hang, "slower than"),
    "waits_in_c": (_spin, "slower than"),
    "allocates": (_allocate, "MemoryError"),
    "writes_outside": (_write_outside, "is opened for writing"),
    "writes_unseen": (_write_outside_unseen, "'unseen'} was written"),
    "writes_through_link": (_write_through_link, "secret was written"),
    "swallows": (_swallow, "is opened for writing"),
    "reads_outside": (_read_outside, "is read"),
    "leaks_key_error": (_leak, "KeyError"),
    "leaks_value_error": (_leak_value_error, "is no sentence of ours"),
    "leaks_type_error": (_leak_from_the_package, "TypeError"),
    "aborts": (_abort, "SIGABRT"),
    "leaves": (_leave, "left in the middle"),
    "imports": (_import, "import of 'stranger"),
    "spawns": (_spawn, "subprocess.Popen"),
}
TARGETS = [
    Target(name="sound", corpus=_corpus, parse=_parse_well),
    *(
        Target(name=name, corpus=_corpus, parse=_unless_honest(parse))
        for name, (parse, _) in FAULTY.items()
    ),
]
