"""Every experiment and benchmark is a command that explains itself, from any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagen_jax import cli

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(
    str(file.relative_to(ROOT))
    for folder in ("experiments", "benchmarks")
    for file in (ROOT / folder).glob("*.py")
    if not file.stem.startswith("_")
)


QUICK = "experiments/guidance.py"  # of a kind; each of the others takes as long


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.slow)
        if command.startswith("experiments/") and command != QUICK
        else command
        for command in COMMANDS
    ],
)
def test_it_explains_itself(command: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, ROOT / command, "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "100", "PYTHONPATH": ""},
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert Path(command).name in found.stdout
    assert "Traceback" not in found.stderr


def test_the_old_command_names_the_new_one(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["imagen", "study", "guidance", "--out", "docs/studies"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    said = "imagen: study is `python experiments/NAME.py` now, from a clone of the repository\n"
    assert capsys.readouterr().err == said
