"""An example as every source gives it, the texts in nested values, and what a source leaves out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

LISTED = 100  # names kept for each reason
LARGEST_PICTURE = 1 << 28  # bytes; and of one text
LARGEST_TEXT = 1 << 20
PICTURES = frozenset({"jpg", "jpeg", "png", "webp"})  # endings of files, in small letters


class Names(tuple[str, ...]):
    """The first names of what is left out for one reason; `total` is how many there are."""

    total: int

    def __new__(cls, names: Iterable[str], total: int) -> "Names":
        """`total` counts the names that are not kept too."""
        made = super().__new__(cls, names)
        made.total = total
        return made

    def __getnewargs__(self) -> tuple[tuple[str, ...], int]:
        return tuple(self), self.total


class Skips:
    """Collects names of what is left out, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._totals = Counter[str]()

    def add(self, reason: str, name: str) -> None:
        """One more; its name is made fit to print, whatever bytes it has."""
        self._add(reason, [printable(name)], 1)

    def extend(self, skipped: Mapping[str, Names], prefix: str = "") -> None:
        """Those that were collected elsewhere, their names behind a prefix."""
        for reason, names in skipped.items():
            self._add(reason, [prefix + name for name in names], names.total)

    def collected(self) -> dict[str, Names]:
        """All so far, reasons in alphabetical order."""
        return {reason: Names(self._names[reason], n) for reason, n in sorted(self._totals.items())}

    def _add(self, reason: str, names: list[str], total: int) -> None:
        self._totals[reason] += total
        kept = self._names.setdefault(reason, [])
        kept += names[: LISTED - len(kept)]


def example(image: bytes, captions: tuple[str, ...]) -> dict[str, Any]:
    """An example: "image", encoded bytes; "captions", all of them; "caption", the first.

    One without any caption has the empty one.
    """
    captions = captions or ("",)
    return {"image": image, "caption": captions[0], "captions": captions}


def texts(value: Any, path: str = "") -> tuple[str, ...]:
    """The texts at a path (`captions/text`) in nested dicts and sequences, without blank ones.

    Errors: TypeError when something else is there, as the rest of "it is ...".
    """
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str) and not path:
        return (value.strip(),) if value.strip() else ()
    if value is None:
        return ()
    if isinstance(value, Mapping):
        # Names may have slashes themselves: `image/filename`.
        names = [n for n in value if path == n or path.startswith(f"{n}/")]
        if not names:
            raise TypeError(f"no text but has the parts {', '.join(map(str, value))}")
        name = max(names, key=len)
        return texts(value[name], path[len(name) + 1 :])
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return tuple(text for part in value for text in texts(part, path))
    if isinstance(value, str):
        raise TypeError(f"a text, which has no part {path!r}")
    raise TypeError(f"no text but {type(value).__name__}")


def printable(name: str) -> str:
    """A name with what a terminal would obey, and bytes that are no text, spelled out."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def summary(skipped: Mapping[str, Names]) -> str:
    """How much was left out, by reason, with an example of each; "" if nothing was."""
    return "; ".join(f"{names.total:,} {r} ({names[0]})" for r, names in skipped.items())
