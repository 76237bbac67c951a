"""Random changes of small files: of bytes, of numbers, of JSON, and of which files there are."""

import json
import random
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

LARGEST = 1 << 20  # bytes of a file after its change
MOST = 4  # changes of one input
# JSON's own writer refuses what these stand for.
HUGE, DEEP, DEEPER = "@huge@", "@deep@", "@deeper@"
WRITTEN = {
    f'"{HUGE}"': "9" * 5000,
    f'"{DEEP}"': "[" * 80 + "]" * 80,
    f'"{DEEPER}"': '{"a":' * 20_000 + "1" + "}" * 20_000,
}
NUMBERS = (
    *(0, 1, -1, 2, 7, 64, 255, 256, 65_535, 10**6, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**30),
)
VALUES = (
    *NUMBERS,
    *(0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), True, False, None),
    *(
        "",
        ".",
        "..",
        "../x",
        "../../outside/secret",
        "../outside/secret",
        "/etc/passwd",
        "a/../../x",
        "-x",
        "~",
        "$(id)",
    ),
    *(
        "a\x1b[2J",
        "a\nb",
        "a\0b",
        "\ud800",
        "\u202e",
        "é",
        "x" * 5000,
        "os.system",
        "stranger.Image",
    ),
    *([], {}, [[]], [None], ["a"], [1, 2], {"a": 1}, {"": None}, HUGE, DEEP, DEEPER),
)
PIECES = (b"\0", b"\n", b"\xff\xff", b"../", b"\x1b[2J", b"[" * 100, b'"', b"\xed\xa0\x80", b"NaN")
_DECIMAL = re.compile(rb"-?\d+")


class Link(NamedTuple):
    """A symbolic link in place of a file."""

    target: str


Files = dict[str, "bytes | Link"]  # by their paths in the folder


def read_files(folder: Path) -> Files:
    """All files below a folder, or one file alone."""
    if folder.is_file():
        return {folder.name: folder.read_bytes()}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_files(files: Files, folder: Path) -> None:
    """Write files and links below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content)


def mutate(
    files: Files, others: Sequence[Files], rng: random.Random, focus: Sequence[str] = ("*",)
) -> Files:
    """Change files at one to `MOST` places; those that match a pattern of `focus` alone."""
    changed = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2, MOST))):
        names = [n for n in changed if any(fnmatch(n, pattern) for pattern in focus)]
        if not names:
            return changed
        name = rng.choice(names)
        content = changed[name]
        if rng.random() < 0.02 or isinstance(content, Link):
            _change_folder(changed, name, rng)
            continue
        other = rng.choice(others).get(name, b"")
        mutated = _change(content, other if isinstance(other, bytes) else b"", rng)
        changed[name] = mutated[:LARGEST]
    return changed


def _change_folder(files: Files, name: str, rng: random.Random) -> None:
    """Take a file away, empty it, exchange it for another, or for a link out of the folder."""
    kind = rng.randrange(4)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[name] = b""
    elif kind == 2:
        files[name] = files[rng.choice(list(files))]
    else:
        up = "../" * (name.count("/") + 1)
        files[name] = Link(up + rng.choice(("linked/secret", "linked", "linked/nothing")))


def _change(data: bytes, other: bytes, rng: random.Random) -> bytes:
    if data[:1] in (b"{", b"[") and rng.random() < 0.75:
        changed = _change_json(data, rng)
        if changed is not None:
            return changed
    return rng.choice(CHANGES)(data, other, rng)


def _flip(data: bytes, other: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    piece = rng.choice((rng.randbytes(rng.randint(1, 8)), *PIECES))
    return data[:at] + piece + data[at + len(piece) :]


def _insert(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((rng.randbytes(rng.randint(1, 64)), *PIECES)) + data[at:]


def _cut(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.randint(1, 64) :]


def _repeat(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data) + 1), rng.randint(1, 256)
    return data[:at] + data[at : at + size] * rng.choice((2, 3, 200)) + data[at + size :]


def _splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _binary_number(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Put an extreme number of 1 to 8 bytes at any place, as lengths and offsets are written."""
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice((*NUMBERS, len(data), len(data) + 1)) % (1 << 8 * size)
    at = rng.randrange(len(data) + 1)
    piece = number.to_bytes(size, rng.choice(("little", "big")))
    return data[:at] + piece + data[at + size :]


def _decimal(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Replace a number that is written in digits."""
    found = list(_DECIMAL.finditer(data[: 1 << 16]))
    if not found:
        return _flip(data, other, rng)
    one = rng.choice(found)
    number = rng.choice((str(rng.choice(NUMBERS)), "9" * 40, "9" * 5000, "1e999", "0x1", ""))
    return data[: one.start()] + number.encode() + data[one.end() :]


CHANGES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    *(_flip, _flip, _overwrite, _insert, _cut, _remove, _repeat, _splice),
    *(_binary_number, _binary_number, _decimal),
)


def _change_json(data: bytes, rng: random.Random) -> bytes | None:
    """Change a value or a key of JSON, or of one line of JSON lines; None for something else."""
    lines = data.split(b"\n")
    whole = [data] if b"\n" not in data.strip() or not _is_json(lines[0]) else lines
    number = rng.randrange(len(whole))
    try:
        document = json.loads(whole[number])
    except (ValueError, RecursionError):
        return None
    text = json.dumps(_change_value(document, rng), ensure_ascii=rng.random() < 0.8)
    for placeholder, written in WRITTEN.items():
        text = text.replace(placeholder, written)
    whole = [*whole[:number], text.encode(errors="surrogatepass"), *whole[number + 1 :]]
    return b"\n".join(whole)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _change_value(value: Any, rng: random.Random) -> Any:
    """Go down to any place of a document, and change what is there."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return _other_value(value, rng)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return rng.choice((value[:at], value * 2, value[::-1], [*value, rng.choice(VALUES)]))
        return [*value[:at], _change_value(value[at], rng), *value[at + 1 :]]
    key, changed = rng.choice(list(value)), dict(value)
    kind = rng.random()
    if kind < 0.05:
        del changed[key]
    elif kind < 0.1:
        changed[str(rng.choice(VALUES))] = changed.pop(key)
    elif kind < 0.13:
        changed[str(rng.choice(VALUES))] = rng.choice(VALUES)
    elif kind < 0.16:
        changed[key] = changed[rng.choice(list(value))]
    else:
        changed[key] = _change_value(changed[key], rng)
    return changed


def _other_value(value: Any, rng: random.Random) -> Any:
    if isinstance(value, str) and rng.random() < 0.3:
        at = rng.randrange(len(value) + 1)
        piece = rng.choice([one for one in VALUES if isinstance(one, str)])
        return value[:at] + piece + value[at:]
    if type(value) in (int, float) and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value * 2, rng.choice(NUMBERS)))
    return rng.choice(VALUES)
