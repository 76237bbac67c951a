"""JSON from files, which may be anybody's: its size and depth are bounded before it is parsed."""

import collections
import json
import re
from typing import Any

from imagen_jax.io import whole_files

MAX_BYTES = 2**26  # of a text
MAX_DEPTH = 64  # of lists and fields in each other; what this package writes has a tenth
# A whole string, or one that does not end; it never goes back, whatever it is given.
_STRING = re.compile(r'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def read_object(file: Any, *, remedy: str) -> dict[str, Any]:
    """Read a file's fields; `file` is a path of this machine or of a bucket.

    Errors: OSError with the remedy; ValueError as `parse_object`.
    """
    try:
        data = whole_files.read_whole(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is missing: {remedy}") from error
    except OSError as error:
        raise OSError(f"{file} can't be read ({error.strerror or error}): {remedy}") from error
    return parse_object(data, where=file, remedy=remedy)


def parse_object(
    text: str | bytes, *, where: object, remedy: str, depth: int = MAX_DEPTH
) -> dict[str, Any]:
    """Parse a text that is one object, and return its fields.

    Errors: ValueError of one sentence that names `where`, the reason and the remedy.
    """
    found = parse_json(text, where=where, remedy=remedy, depth=depth)
    if not isinstance(found, dict):
        raise ValueError(f"{where} has no fields, but is {_kind(found)}: {remedy}")
    return found


def parse_json(text: str | bytes, *, where: object, remedy: str, depth: int = MAX_DEPTH) -> Any:
    """Parse any JSON, of at most `depth` lists and fields in each other.

    Errors: as `parse_object`.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"{where} has more than {MAX_BYTES:,} bytes of JSON: {remedy}")
    try:
        text = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        if is_deeper(text, depth):
            raise ValueError(f"nested more than {depth} deep")
        return json.loads(text, object_pairs_hook=make_fields)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON ({error}): {remedy}") from error


def is_deeper(text: str, most: int = MAX_DEPTH) -> bool:
    """Return whether brackets, but for those in strings, are deeper in each other than `most`."""
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > most:
            return True
    return False


def make_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the fields of an object. Errors: ValueError for one that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        from imagen_jax.config.sentences import shorten  # here: config reads JSON itself

        twice, _ = collections.Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"it has {shorten(twice)} twice")
    return found


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
