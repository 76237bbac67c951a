"""What the source says of each field of a class: its docstring, or the comments at or above it."""

import ast
import functools
import inspect
import io
import textwrap
import tokenize


@functools.cache  # to find a class, its module is parsed
def field_comments(kind: type) -> dict[str, str]:
    """One line of text for each annotated field of the class itself; "" where nothing is said."""
    if not inspect.get_annotations(kind):
        return {}
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except OSError:  # made while the program runs
        return {}
    (definition,) = ast.parse(source).body
    body = getattr(definition, "body", [])
    comments = _comments(source)
    return {
        node.target.id: _docstring(after) or _comment(node, comments)
        for node, after in zip(body, [*body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _comments(source: str) -> dict[int, tuple[bool, str]]:
    """By line: whether the comment stands alone there, and its text."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: (token.line.lstrip().startswith("#"), token.string.lstrip("# "))
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _docstring(node: ast.AST | None) -> str:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return ""
    return " ".join(str(node.value.value).split())


def _comment(node: ast.AnnAssign, comments: dict[int, tuple[bool, str]]) -> str:
    above = []
    line = node.lineno - 1
    while line in comments and comments[line][0]:
        above.append(comments[line][1])
        line -= 1
    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return " ".join([*reversed(above), *(comments[n][1] for n in lines if n in comments)])
