"""Names and lines that come from files: what may become part of a path, an argument or a line.

A stranger's file may hold any text under a key that this package makes a file's name of, or prints.
"""

import unicodedata

from imagen_jax.config.sentences import shorten

LONGEST = 128  # characters of a name
SIGNS = "_-. "  # that a name may have besides letters, marks and digits, but not at its beginning
RULE = (
    f"a name is 1 to {LONGEST} letters, digits, blanks and signs _ - . long, begins with a letter, "
    "a digit or _, has no .. and does not end with a blank"
)
# Categories of characters that move a terminal's cursor or break a line, and what turns a line.
CONTROLS = ("Cc", "Zl", "Zp")
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def check_name(name: object, what: str) -> str:
    """Return a name that may become part of a path, an argument and a terminal's line.

    `what` says where it comes from. Errors: ValueError that names it, the value and the rule.
    """
    if not isinstance(name, str) or not _is_name(name):
        raise ValueError(f"{what} is {shorten(name)}, which is no name: {RULE}")
    return name


def check_line(text: str, what: str) -> str:
    """Return a text that may be printed, such as a path or an address.

    Errors: ValueError as `check_name`, for control characters and for those that turn a line.
    """
    if any(map(_moves, text)):
        raise ValueError(
            f"{what} is {shorten(text)}, which has control characters: take them out of it"
        )
    return text


def escape_controls(sentence: str) -> str:
    """Escape the control characters of a sentence, in which a stranger's text may stand.

    Lines that are indented stay: they are those of a list.
    """
    return "".join(
        sign
        if not _moves(sign) or sign == "\t" or sentence.startswith("\n  ", place)
        else _spelled(sign)
        for place, sign in enumerate(sentence)
    )


def _spelled(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def _moves(sign: str) -> bool:
    """Return whether a character moves a terminal's cursor, or breaks or turns a line."""
    return unicodedata.category(sign) in CONTROLS or sign in TURNS


def _is_name(text: str) -> bool:
    return (
        0 < len(text) <= LONGEST
        and (text[0] == "_" or _is_letter(text[0]))
        and all(sign in SIGNS or _is_letter(sign) for sign in text)
        and ".." not in text
        and not text.endswith(" ")
    )


def _is_letter(sign: str) -> bool:
    """Return whether a character is a letter, a digit or a mark above or below one."""
    return unicodedata.category(sign)[0] in "LNM"
