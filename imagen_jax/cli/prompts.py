"""The prompts of `imagen sample`: arguments, and the lines of a file."""

import json
from collections.abc import Sequence
from pathlib import Path

from imagen_jax import config
from imagen_jax.io import whole_files


def read_prompts(file: Path) -> list[str]:
    """The lines of a text file: UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Errors: ValueError that names the line that is not text; OSError for a file that can't be read;
    ValueError for one that is too large.
    """
    data = whole_files.read_whole(file)
    codec = json.detect_encoding(data)
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}, line {line}: byte {data[error.start]:#04x} is no {codec.upper()}; save the "
            "file as UTF-8"
        ) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, text in enumerate(lines, 1):
        if "\0" in text:
            raise ValueError(f"{file}, line {number} has bytes of 0; save the file as UTF-8")
    return lines if lines[-1] else lines[:-1]


def check(prompts: Sequence[str], *, negative_prompt: str) -> None:
    """Refuse arguments that no tokenizer can read. Errors: ValueError that names the prompt."""
    config.check_texts(prompts, what="prompt")
    config.check_texts([negative_prompt], what="--negative-prompt: prompt")
