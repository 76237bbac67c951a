"""Unicode's normal forms of texts that may be anybody's."""

import unicodedata
from typing import Literal

MOST_MARKS = 30  # on one character, as in Unicode's stream-safe form (UAX 15)


def normalize(form: Literal["NFC", "NFKC"], text: str) -> str:
    """Return a text's normal form, without marks that no script puts on one character.

    Python sorts the marks of a character in a time that grows with their number squared.
    """
    if text.isascii():
        return text
    marks, kept = 0, []
    for sign in text:
        marks = marks + 1 if unicodedata.combining(sign) else 0
        if marks <= MOST_MARKS:
            kept.append(sign)
    return unicodedata.normalize(form, "".join(kept))
