"""What docstrings say of errors: each class, function and argument that they name exists."""

import ast
import builtins
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parent.parent / "imagen_jax"
OUTSIDE = {"tarfile.ReadError"}  # classes of other packages
NO_CLASSES = {
    "Beam",
    "Ctrl",
    "Google",
    "SentencePiece",
    "True",
    "Unicode",
}  # capitals for another reason
ERRORS = re.compile(r"Errors: (.*?)(?=\n\n|\n *\"?[A-Z][\w ]+\"?: |\Z)", re.DOTALL)
WORD = re.compile(r"\b(?:\w+\.)*[A-Z]\w*[a-z]\w*")  # a class, by its module's name or not
REFERENCES = re.compile(
    r"\b(?:as|as for|those of)\s+(`[\w.]+`(?:(?:,| and| or|, and|, or)\s+`[\w.]+`)*)"
)


@functools.cache  # when it is asked for: every process of the suite imports this file
def _trees() -> dict[Path, ast.Module]:
    return {file: ast.parse(file.read_text()) for file in sorted(LIBRARY.rglob("*.py"))}


def _bound(tree: ast.AST) -> set[str]:
    """Names that a module or a class gives to anything, arguments included."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.arg(arg=name):
                names.add(name)
            case ast.Name(id=name) | ast.alias(name=name):
                names.add(name)
    return names


@functools.cache
def _classes() -> dict[str, ast.ClassDef]:
    nodes = (node for tree in _trees().values() for node in ast.walk(tree))
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


@functools.cache
def _all_bound() -> list[tuple[str, set[str]]]:
    """What modules, classes and packages bind, by their names."""
    found = [(file.stem, _bound(tree)) for file, tree in _trees().items()]
    found += [(name, _bound(node)) for name, node in _classes().items()]
    packages = [(f.parent.name, t) for f, t in _trees().items() if f.stem == "__init__"]
    return found + [(name, _bound(tree)) for name, tree in packages]


def _documented() -> Iterator[tuple[str, ast.Module, str]]:
    for file, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield str(file.relative_to(LIBRARY)), tree, ast.get_docstring(node) or ""


def _holds(owner: str, name: str) -> bool:
    """Tell whether a module or a class of that name binds `name`."""
    return any(name in names for one, names in _all_bound() if one == owner)


def _is_class(word: str) -> bool:
    if word in OUTSIDE or word in NO_CLASSES:
        return True
    *owners, name = word.split(".")
    if owners:
        return name in _classes() and _holds(owners[-1], name)
    error = getattr(builtins, name, None)
    return name in _classes() or (isinstance(error, type) and issubclass(error, BaseException))


def unknown_names(docstring: str, tree: ast.Module) -> list[str]:
    """Names in the `Errors:` of a docstring that nothing bears."""
    unknown = []
    for said in ERRORS.findall(docstring):
        within = re.sub(r"(?<=[.:]\s)[A-Z]\w*(?= )", "", said)  # no first words of sentences
        unknown += [
            word for word in WORD.findall(re.sub(r"`[^`]*`", "", within)) if not _is_class(word)
        ]
        for name in re.findall(r"[\w.]+(?=`)", " ".join(REFERENCES.findall(said))):
            *owners, last = name.split(".")
            if not (_holds(owners[-1], last) if owners else last in _bound(tree)):
                unknown.append(name)
    return unknown


def test_errors_that_docstrings_name_exist() -> None:
    wrong = {
        (place, name)
        for place, tree, docstring in _documented()
        for name in unknown_names(docstring, tree)
    }
    assert not wrong


@pytest.mark.parametrize(
    ("docstring", "unknown"),
    [
        ("Read.\n\nErrors: ValueError; Unreadable when cut short.", ["Unreadable"]),
        ("Read. Errors: OSError, or\nexits.Preempted.\nSource: Imagen.", ["exits.Preempted"]),
        ("Read.\n\nErrors: as `gone`, and as `loop.gone`. Each names it.", ["gone", "loop.gone"]),
        ("Read.\n\nErrors: as `here`; exit_codes.Preempted; Diverged for a `limit`.", []),
    ],
)
def test_an_error_that_is_not_there_is_found(docstring: str, unknown: list[str]) -> None:
    tree = ast.parse("def here(limit): ...")
    assert unknown_names(docstring, tree) == unknown
