"""Numbers as people type them: of ASCII digits alone.

Python's own `int` and `float` take any script's digits, and underscores between them, which nobody
sees in a command that was copied.
"""

import re

from imagen_jax.config.sentences import shorten

LONGEST = 400  # characters; a float32 written in full has fewer
_WHOLE = re.compile(r"-?[0-9]+")
_REAL = re.compile(
    r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?(inf|infinity|nan)", re.IGNORECASE
)


def parse_whole(text: str) -> int:
    """Read a whole number. Errors: ValueError."""
    if len(text) > LONGEST or not _WHOLE.fullmatch(text):
        raise ValueError(f"{shorten(text)} is no whole number: write it in the digits 0 to 9")
    return int(text)


def parse_real(text: str) -> float:
    """Read a number, or infinity or NaN by their names. Errors: ValueError."""
    if len(text) > LONGEST or not _REAL.fullmatch(text):
        raise ValueError(f"{shorten(text)} is no number: write it in the digits 0 to 9")
    return float(text)
