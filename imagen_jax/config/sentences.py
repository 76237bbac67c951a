"""Values in sentences to people, and texts that can be shown and written at all."""

from collections.abc import Iterable, Sequence

MOST = 80  # characters of a text that are shown
LISTED = 8  # values of a list that are shown
ESCAPED = range(0xDC80, 0xDD00)  # how Python reads a byte that is no UTF-8, less 0xDC00


def shorten(value: object, *, most: int = MOST) -> str:
    """Shorten a value as Python writes it: of a long text its beginning, and its length."""
    if isinstance(value, str | bytes):
        unit = "bytes" if isinstance(value, bytes) else "characters"
        more = f"... ({len(value):,} {unit})" if len(value) > most else ""
        return repr(value[:most]) + more
    shown = repr(value)
    return shown if len(shown) <= most else shown[:most] + "..."


def join_values(values: Sequence[object]) -> str:
    """Join the first of several values, and say how many more there are."""
    more = f" and {len(values) - LISTED:,} more" if len(values) > LISTED else ""
    return ", ".join(shorten(value) for value in values[:LISTED]) + more


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
