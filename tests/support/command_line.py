"""The `imagen` command inside the process of a test."""

import sys

import pytest

from imagen_jax import cli


def run_imagen(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command; the exit code that its process would have."""
    monkeypatch.setattr(sys, "argv", ["imagen", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
