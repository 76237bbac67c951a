"""The blocks of docs/your-data.md, for tests to run."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import jpegs

PAGE = Path(__file__).parents[2] / "docs" / "your-data.md"
CONFIG = Path("configs") / "mine.py"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_blocks(section: str, language: str = "bash") -> list[str]:
    """The blocks of a section of the page, in order; of sections below it as well."""
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (text,) = (part for part in parts if part.splitlines()[0] == section)
    return [block for kind, block in BLOCK.findall(text) if kind == language]


def read_commands(section: str, changes: Mapping[str, str]) -> list[list[str]]:
    """The words of each command of a section; each of `changes` is made at least once."""
    text = "".join(read_blocks(section)).replace("\\\n", "")
    for old, new in changes.items():
        assert old in text, f"{PAGE.name} has no {old}"
        text = text.replace(old, new)
    lines = [line for line in text.splitlines() if line.strip()]
    return [shlex.split(part) for line in lines for part in line.split(" && ")]


def save_config(folder: Path) -> Path:
    """Save the page's config below a folder, as a reader does. Its path."""
    (block,) = read_blocks("On a laptop", "python")
    file = folder / CONFIG
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block)
    return file


def make_photos(folder: Path, count: int) -> None:
    """Write photos of several sizes, each with its caption beside it."""
    folder.mkdir(parents=True)
    for number in range(count):
        content = jpegs.photo((40 + number, 60), seed=number)
        (folder / f"{number}.jpg").write_bytes(content)
        (folder / f"{number}.txt").write_text(f"a blurred picture, number {number}")
