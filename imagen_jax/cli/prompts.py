"""The prompts of `imagen sample`: arguments, and the lines of a file."""

from collections.abc import Sequence
from pathlib import Path

from imagen_jax import config
from imagen_jax.io import text_files


def read_prompts(file: Path) -> list[str]:
    """The lines of a text file. Errors: as `text_files.read_text`."""
    return text_files.read_lines(file)


def check(prompts: Sequence[str], *, negative_prompt: str) -> None:
    """Refuse arguments that no tokenizer can read. Errors: ValueError that names the prompt."""
    config.check_texts(prompts, what="prompt")
    config.check_texts([negative_prompt], what="--negative-prompt: prompt")
