"""Words of the package: the field's standard terms, and functions that are verbs or quantities."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "imagen_jax").rglob("*.py"))
PROSE = [*FILES, *sorted((ROOT / "imagen_jax").rglob("*.md")), ROOT / "README.md"]
UNWANTED = re.compile(r"\w*(?:paint|picture)\w*|\banew\b|\bgoes on\b|\bwhoever\b", re.IGNORECASE)
ALLOWED = re.compile(
    "RePaint|[Ii]npainting"  # a paper's title and the field's term
    r'|"--(?:sweep-)?pictures?"|"pictures"'  # old options and an old key, which are still answered
    '|"a picture of "'  # a caption of the embedded dataset
)
BARE = re.compile(
    "about|after|against|as|at|before|behind|below|beside|between|by|for|from|in|into|near|of|off|on"
    "|onto|out|over|since|through|to|under|until|up|via|with|within|without"  # prepositions
    r"|(?!read|embed)[a-z]+(?:ed|ing)|found|held|kept|known|lost|made|missing|ragged|seen|unknown"
)


def unwanted_words(text: str) -> list[str]:
    return UNWANTED.findall(ALLOWED.sub("", text))


def bare_names(tree: ast.Module) -> Iterator[str]:
    """Public functions and methods whose whole name is a participle or a preposition."""
    owners = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for function in (node for owner in owners for node in owner.body):
        if not isinstance(function, ast.FunctionDef) or not BARE.fullmatch(function.name):
            continue
        if not any("property" in ast.unparse(one) for one in function.decorator_list):
            yield function.name


def test_the_prose_has_standard_terms() -> None:
    found = {str(file): unwanted_words(file.read_text()) for file in PROSE}
    assert not {file: words for file, words in found.items() if words}


def test_no_public_function_is_a_bare_participle_or_preposition() -> None:
    found = {str(file): list(bare_names(ast.parse(file.read_text()))) for file in FILES}
    assert not {file: names for file, names in found.items() if names}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("RePaint, inpainting and --init-image", []),
        ('RENAMED = {"--pictures": "--images"}', []),
        ("It paints Pictures anew; whoever", ["paints", "Pictures", "anew", "whoever"]),
    ],
)
def test_an_unwanted_word_is_found(text: str, found: list[str]) -> None:
    assert unwanted_words(text) == found


def test_a_bare_name_is_found() -> None:
    code = "def sorted_rows(): ...\ndef cleaned(): ...\nclass A:\n    def of(self): ...\n"
    properties = "    @property\n    def skipped(self): ...\n    def _made(self): ...\n"
    assert list(bare_names(ast.parse(code + properties))) == ["cleaned", "of"]
