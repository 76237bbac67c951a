"""One builder of conditioning serves training, sampling, export and the studies."""

import ast
from pathlib import Path

import imagen_jax

PACKAGE = Path(imagen_jax.__file__).parent


def test_no_other_file_encodes_text_for_a_network() -> None:
    """A second spelling of it is where training and sampling drift apart."""
    spelled = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value == "encode_text"
    }
    assert spelled == {"models/network.py"}
