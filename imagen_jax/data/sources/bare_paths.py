"""Paths that are given without a form: of a folder, a tar, a Parquet file, or a table of captions.

Several of them, as a shell makes of a pattern without quotes, become the pattern again.
"""

import itertools
import os
import re
from collections.abc import Sequence

from imagen_jax.data.sources import tables
from imagen_jax.data.sources.base import IMAGE_SUFFIXES

TARS, FOLDER, PARQUET = "tars:", "folder:", "parquet:"
_SPECIAL = re.compile(r"[{},*?\[\]]")  # in a pattern
_NUMBERED = re.compile(r"(.*?)([0-9]+)(\.\w+)")


def add_form(text: str) -> str:
    """Return the address of what a path leads to; the text itself where that is not known."""
    path, query = text, ""
    if not os.path.exists(os.path.expanduser(text)):
        path, mark, options = text.partition("?")
        query = mark + options
    parent, name = os.path.split(path)
    if name in tables.FILES:
        return f"{FOLDER}{parent or '.'}{query}"
    if name.endswith(".tar"):
        return f"{TARS}{path}{query}"
    if name.endswith(".parquet"):
        return f"{PARQUET}{path}{query}"
    return f"{_form_of(path)}{path}{query}"


def _form_of(path: str) -> str:
    """The form of a folder by the files in it; "" for no folder."""
    folder = os.path.expanduser(path)
    if not os.path.isdir(folder):
        return ""
    names = os.listdir(folder)
    endings = {name.rpartition(".")[2].lower() for name in names}
    if endings & IMAGE_SUFFIXES or set(names) & set(tables.FILES):
        return FOLDER
    if "tar" in endings:
        return TARS
    return PARQUET if "parquet" in endings else FOLDER


def holds_data(path: str) -> bool:
    """Return whether a path leads to a folder with images, tars, Parquet or a table of captions."""
    folder = os.path.expanduser(path)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    endings = {name.rpartition(".")[2].lower() for name in names}
    return bool(endings & {*IMAGE_SUFFIXES, "tar", "parquet"} or set(names) & set(tables.FILES))


def join_addresses(texts: Sequence[str]) -> str:
    """Return one address for several tars or Parquet files: their examples, in order of the names.

    Errors: ValueError for other sources, which only a mixture joins, and for names that a pattern
    cannot spell.
    """
    if len(texts) == 1:
        return texts[0]
    found = [text if text.startswith((TARS, PARQUET)) else add_form(text) for text in texts]
    form = next((f for f in (TARS, PARQUET) if all(text.startswith(f) for text in found)), None)
    if form is None:
        raise ValueError(
            f"{len(texts)} sources, {texts[0]} to {texts[-1]}: several are taken if all of them "
            "are tars, or Parquet files; else write them into a file, one a line, for mixture:FILE"
        )
    paths = sorted({text.removeprefix(form) for text in found})
    least, most = paths[0].split("/"), paths[-1].split("/")  # of sorted paths the most different
    shared = itertools.takewhile(lambda parts: parts[0] == parts[1], zip(least, most, strict=False))
    folder = "".join(f"{part}/" for part, _ in shared)
    names = [path.removeprefix(folder) for path in paths]
    if special := next((name for name in names if _SPECIAL.search(name)), None):
        raise ValueError(
            f"{len(texts)} sources, of which {special} has a character that means something in "
            "patterns: rename it, or give their folder alone"
        )
    return form + folder + _pattern(names)


def _pattern(names: Sequence[str]) -> str:
    """A pattern of these sorted names: `{00000..00099}.tar` where they count up, or a list."""
    if len(names) == 1:
        return names[0]
    parts = [_NUMBERED.fullmatch(name) for name in names]
    matched = [part.groups() for part in parts if part]
    if len(matched) == len(names):
        first, last = matched[0][1], matched[-1][1]
        counted = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        alike = len({(before, after) for before, _, after in matched}) == 1
        if alike and counted == [number for _, number, _ in matched]:
            return f"{matched[0][0]}{{{first}..{last}}}{matched[0][2]}"
    return f"{{{','.join(names)}}}"
