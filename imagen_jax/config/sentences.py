"""Values in sentences to people, and texts that can be shown and written at all."""

import re
from collections.abc import Iterable, Sequence

MOST = 80  # characters of a text that are shown
LONGEST = 300  # characters of a name or path in a sentence
LONGEST_LINE = 2000  # characters of a line of a sentence
LINES = 1200  # of a sentence that lists
LISTED = 8  # values of a list that are shown
MANY = 40  # ... where each is worth a look
_LONG_WORD = re.compile(rf"\S{{{LONGEST + 1},}}")
ESCAPED = range(0xDC80, 0xDD00)  # how Python reads a byte that is no UTF-8, less 0xDC00


def shorten(value: object, *, most: int = MOST) -> str:
    """Shorten a value as Python writes it: the first and last part of a long text, and how much
    is between."""
    if isinstance(value, str | bytes):
        if len(value) <= most:
            return repr(value)
        unit = "bytes" if isinstance(value, bytes) else "characters"
        first, last = _ends(most)
        return f"{value[:first]!r}... {len(value) - most:,} {unit} ...{value[-last:]!r}"
    return abridge(repr(value), most=most)


def abridge(text: str, *, most: int = LONGEST) -> str:
    """Shorten a text that stands in a sentence as it is, such as a path: as `shorten` does."""
    if len(text) <= most:
        return text
    first, last = _ends(most)
    return f"{text[:first]}... {len(text) - most:,} characters ...{text[-last:]}"


def bound(sentence: str) -> str:
    """Shorten the long words of a sentence, its long lines, and the number of its lines.

    It is the last resort: who writes a sentence shortens what a stranger wrote.
    """
    lines = sentence.split("\n")
    more = [f"  and {len(lines) - LINES:,} more lines"] if len(lines) > LINES else []
    shown = (_LONG_WORD.sub(lambda word: abridge(word[0]), line) for line in lines[:LINES])
    return "\n".join([*(abridge(line, most=LONGEST_LINE) for line in shown), *more])


def join_clauses(clauses: Iterable[str]) -> str:
    """Join what is wrong in many places, as `join_texts`."""
    return join_texts(clauses, separator="; ", most=MANY)


def _ends(most: int) -> tuple[int, int]:
    """The lengths of the first and the last part that are shown of a longer text."""
    last = most // 3
    return most - last, last


def join_values(values: Sequence[object]) -> str:
    """Join the first of several values, and say how many more there are."""
    more = f" and {len(values) - LISTED:,} more" if len(values) > LISTED else ""
    return ", ".join(shorten(value) for value in values[:LISTED]) + more


def join_texts(texts: Iterable[str], *, separator: str = ", ", most: int = LISTED) -> str:
    """Join the first of several texts as they are, and say how many more there are."""
    texts = list(texts)
    said = separator.join(abridge(text) for text in texts[:most])
    return f"{said} and {len(texts) - most:,} more" if len(texts) > most else said


def check_texts(texts: Iterable[object], *, what: str) -> None:
    """Refuse what is no string, or a string that is no Unicode text and so can't be written.

    Errors: ValueError that names the value, its place among `texts` and the remedy.
    """
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            remedy = "decode it" if isinstance(text, bytes) else "give a string, or leave it out"
            kind = type(text).__name__
            raise ValueError(f"{what} {number} is {shorten(text)}, of type {kind}: {remedy}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            wrong = f"byte {code - 0xDC00:#04x}" if code in ESCAPED else f"half character {code:#x}"
            raise ValueError(
                f"{what} {number}, {shorten(text)}, is no Unicode text: {wrong} at character "
                f"{error.start + 1}; write it in UTF-8, or take that character out"
            ) from error
