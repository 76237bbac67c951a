"""Text files of people, whatever Unicode form they are saved in."""

import json
from pathlib import Path

from imagen_jax.io import whole_files


def read_text(file: Path) -> str:
    """Read a text: UTF-8, or UTF-16 or UTF-32 with a byte order mark; lines end in "\\n".

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
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{file}, line {line} has bytes of 0; save the file as UTF-8")
    return text


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text. Errors: as `read_text`."""
    lines = read_text(file).split("\n")
    return lines if lines[-1] else lines[:-1]
