"""The command line of every experiment: `python experiments/NAME.py --help`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from imagen_jax.cli import console, parsing
from imagen_jax.parallel import backend, compilation_cache
from imagen_jax.runtime import exit_codes

Options = TypeVar("Options")
RENAMED = {"--pictures": "--images", "--until": "--last-stage"}  # old options


def main(kind: type[Options], run: Callable[[Options], None], *, description: str | None) -> None:
    """Parse the command line and run the experiment; bad input exits with 1 and one sentence."""
    name = Path(sys.argv[0]).name
    prog = f"python experiments/{name}"
    try:
        backend.refuse_x64_variable(os.environ.get("JAX_ENABLE_X64"))
        parsing.refuse_renamed(sys.argv[1:], RENAMED)
        options = parsing.parse(kind, sys.argv[1:], prog=prog, description=description or "")
        compilation_cache.use_cache()
        with console.tolerant():
            run(options)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command resumes it", file=sys.stderr)
        sys.exit(exit_codes.INTERRUPTED)
    except Exception as error:
        expected = isinstance(error, ValueError | OSError | FloatingPointError)
        sentence = str(error) if expected else backend.describe_failure(error)
        if not sentence or os.environ.get("IMAGEN_TRACEBACK"):
            raise
        print(f"{name}: error: {sentence}", file=sys.stderr)
        sys.exit(exit_codes.REFUSED)
