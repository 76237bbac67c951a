"""Notebooks are pages of the site: their text and their code, which the test suite runs."""

import json
from typing import Any

from myst_parser.parsers.sphinx_ import MystParser


def to_markdown(notebook: str) -> str:
    """The cells of a notebook, without outputs."""
    parts = []
    for cell in json.loads(notebook)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts)


class NotebookParser(MystParser):
    """Parses a notebook as the Markdown of its cells."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: Any) -> None:
        super().parse(to_markdown(inputstring), document)


def setup(app: Any) -> dict[str, bool]:
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True}
