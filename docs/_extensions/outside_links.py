"""Links to files of the repository that are no pages of the site.

They lead to the page that includes the file; where there is none, the file is named instead.
"""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.util import logging

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\.?/[^)#\s]+)[^)]*\)")
INCLUDED = {  # file: its page
    "imagen_jax/pretrained/emoji/README.md": "/results/embedded_emoji.md",
    "imagen_jax/pretrained/shapes/README.md": "/results/embedded.md",
    "imagen_jax/pretrained/shapes-fast/README.md": "/results/embedded_fast.md",
}
logger = logging.getLogger(__name__)


def _name(app: Any, docname: str, source: list[str]) -> None:
    root = Path(app.srcdir)
    folder = (root / docname).parent

    def named(link: re.Match[str]) -> str:
        place = Path(os.path.normpath(folder / link[2]))
        if place.is_relative_to(root):
            return link[0]
        if not place.exists():
            logger.warning("%s is not there", link[2], location=docname)
        path = os.path.relpath(place, root.parent)
        if path in INCLUDED:
            return f"[{link[1]}]({INCLUDED[path]})"
        return f"`{path}`" if link[1].strip("`") in path else f"{link[1]} (`{path}`)"

    source[0] = LINK.sub(named, source[0])


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _name)
    return {"parallel_read_safe": True}
