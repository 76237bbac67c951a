"""What became of an input: loaded, refused by a sentence of the project, or a fault."""

import linecache
import os
from pathlib import Path
from types import TracebackType

PACKAGE = str(Path(__file__).parents[2] / "imagen_jax")
LONGEST = 20_000  # characters of a sentence; those that list tensors are long


def place_of(error: BaseException) -> str:
    """Where an error arose: its kind, and the last lines of the package and of all code."""
    frames = _frames(error.__traceback__)
    ours = [frame for frame in frames if frame[0].startswith(PACKAGE)]
    places = [f"{os.path.basename(file)}:{line}" for file, line in (*ours[-1:], *frames[-1:])]
    return " ".join(dict.fromkeys([type(error).__name__, *places]))


def _frames(trace: TracebackType | None) -> list[tuple[str, int]]:
    found = []
    while trace is not None:
        found.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return found


def find_fault(error: BaseException) -> str:
    """Say what is wrong with how a parser ended; "" for a refusal.

    A refusal is a ValueError or an OSError that the project raises, not one that leaks from a
    library or from Python; an OSError that the system raises has to name its file.
    """
    kind = f"{type(error).__name__}: {str(error)[:300]!a}"
    if not isinstance(error, ValueError | OSError) or isinstance(error, UnicodeError):
        return kind
    names_its_file = isinstance(error, OSError) and (error.filename or "/" in str(error))
    if not names_its_file and not _is_raised_by_us(error.__traceback__):
        return f"{kind} is no sentence of ours"
    text = str(error)
    if not text.strip() or len(text) > LONGEST:
        return f"{kind} has {len(text):,} characters"
    return ""


def _is_raised_by_us(trace: TracebackType | None) -> bool:
    """Return whether the last frame of a traceback is a `raise` of the package."""
    frames = _frames(trace)
    if not frames or not frames[-1][0].startswith(PACKAGE):
        return False
    return linecache.getline(*frames[-1]).strip().startswith("raise")
