"""Docstrings, which are Markdown with paragraphs such as `Errors: ...`, as autodoc reads them."""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from field_comments import field_comments

LABELS = ("Errors", "Shapes", "Units", "Source", "Differs from the paper")
ONE = "|".join(LABELS)
# At the start of a line, or after the sentence before.
LABEL = re.compile(rf"(?:^|(?<=[.:;)]) )((?:{ONE})(?:, (?:{ONE}))*): ")
SIGNATURES = (
    (r"jaxlib\._jax\.Array", "Array"),
    (r"~?typing\.Annotated\[(.*?), ~?[\w.]*\bRange\(.*?infinite=\w+\)\]", r"\1"),
    (r", parent: [^=]* = <flax\.[^>]*>, name: [^=]* = None", ""),
)


def escaped(text: str) -> str:
    r"""Text in which `*`, `|`, `<` and a last `_` mean themselves, in Markdown and in reST.

    What is in backticks stays as it is, and the mark of a list.
    """
    mark, rest = re.fullmatch(r"(\s*(?:[*-] )?)(.*)", text, re.DOTALL).groups()
    parts = re.split(r"(`[^`]*`)", rest)
    return mark + "".join(
        part if part.startswith("`") else re.sub(r"([*|<\\]|_(?!\w))", r"\\\1", part)
        for part in parts
    )


def to_rst(lines: list[str]) -> list[str]:
    """The same docstring in reST: tables, and fields for its labelled paragraphs."""
    result: list[str] = []
    for is_table, group in groupby(lines, key=lambda line: bool(re.match(r"\|.*\|$", line))):
        part = list(group)
        result += _table(part) if is_table else _paragraphs(part)
    return result


def _table(rows: list[str]) -> list[str]:
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", row.strip()[1:-1])] for row in rows]
    body = [row for row in cells if not set("".join(row)) <= set("-: ")]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in body:
        marks = ["   * -", *["     -"] * (len(row) - 1)]
        lines += [f"{mark} {escaped(c)}".rstrip() for mark, c in zip(marks, row, strict=True)]
    return ["", *lines, ""]


def _paragraphs(lines: list[str]) -> Iterator[str]:
    inside = False  # a field, whose other lines are indented
    for line in lines:
        first, *labelled = LABEL.split(line)
        if first or not labelled:
            inside = inside and bool(line.strip())
            yield ("    " if inside else "") + escaped(first)
        for label, text in zip(labelled[::2], labelled[1::2], strict=True):
            if not inside:
                yield ""
            inside = True
            yield f":{label}: {escaped(text)}"


def _process(
    app: Any, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    lines[:] = to_rst(lines)
    if isinstance(obj, type) and (comments := field_comments(obj)):
        fields = [f":param {name}: {escaped(said)}" for name, said in comments.items() if said]
        lines += ["", *fields, ""]


def _signature(
    app: Any, what: str, name: str, obj: object, options: object, *signature: str | None
) -> tuple[str | None, ...]:
    """A signature with arrays by their public name, and without ranges and what Linen adds."""
    return tuple(part and _readable(part) for part in signature)


def _readable(signature: str) -> str:
    for found, instead in SIGNATURES:
        signature = re.sub(found, instead, signature)
    return signature


def _skip(app: Any, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out the fields of a NamedTuple, which are named in its signature and described."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
