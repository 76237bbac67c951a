"""Environments that have nothing but what a test puts in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def make(folder: Path, wanted: Sequence[str]) -> Path:
    """A new environment in `folder` with what pip calls `wanted`: its Python."""
    uv = find_uv()
    python = folder / "venv/bin/python"
    run([uv, "venv", "-q", "--python", sys.executable, "venv"], folder)
    run([uv, "pip", "install", "-q", "--python", str(python), *wanted], folder)
    return python


def find_uv() -> str:
    """The program `uv` of this environment, or of the PATH."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv, "uv makes the environment: pip install 'imagen_jax[test]'"
    return uv


def run(command: Sequence[str], where: Path, *, fails: bool = False, **environment: str) -> str:
    """Run a command that ends well, or `fails`, without this environment's packages.

    Returns what it printed, or for one that fails its messages.
    """
    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=where, env=outside | environment, capture_output=True, text=True
    )
    assert (done.returncode != 0) == fails, f"{command}\n{done.stderr[-3000:]}"
    return done.stderr if fails else done.stdout
