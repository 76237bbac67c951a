"""The command line: help that reads well, one sentence and a non-zero exit for bad input."""

import subprocess
import sys
from pathlib import Path

import pytest

from imagen_jax import cli, exits
from imagen_jax.cli import train

ENCODE = ("encode", "shapes/tiny", "--out", "o", "--encoder", "t5_1_1_tiny")


def _run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["imagen", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(command: str, monkeypatch, capsys) -> None:
    assert _run(monkeypatch, command, "--help") == 0
    out = capsys.readouterr().out
    assert f"usage: imagen {command}" in out
    assert len(out.splitlines()) > 8


def test_the_overview_names_every_command(monkeypatch, capsys) -> None:
    assert _run(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert all(f"  {command} " in out for command in cli.COMMANDS)
    assert _run(monkeypatch) == 2


def test_the_help_of_a_config_lists_its_fields(monkeypatch, capsys) -> None:
    assert _run(monkeypatch, "train", "tiny/sr16", "--help") == 0
    out = capsys.readouterr().out
    for field in (
        "--optim.learning-rate",
        "--stage.model.stem-channels",
        "--workdir",
        "--max-restarts",
    ):
        assert field in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("paint",), 2, "no command 'paint'"),
        (("train",), 1, "give a config first"),
        (("train", "nowhere", "--workdir", "w"), 1, "no config 'nowhere'"),
        (("train", "tiny/base8"), 2, "--workdir"),
        (("train", "tiny/base8", "--workdir", "w", "--optim.lr", "3"), 2, "--optim.lr"),
        (("train", "tiny/base8", "--workdir", "w", "--train.steps", "many"), 2, "many"),
        (("train", "tiny/base8", "--workdir", "w", "--stage.size", "9"), 2, "does not divide"),
        (("train", "tiny/base8", "--workdir", "w", "--data-dir", "no"), 1, "imagen encode"),
        (("train", "tiny/base8", "--workdir", "w", "--max-restarts", "-1"), 1, "0 or more"),
        (("train", "tiny/base8", "--workdir", "w", "--heartbeat-timeout", "1"), 1, "5 seconds"),
        (("sample", "nowhere", "a"), 1, "no cascade at nowhere"),
        (("sample", "nowhere"), 1, "no prompts"),
        (("sample", "nowhere", "a", "--sampler", "euler"), 1, "--sampler 'euler': wanted one of"),
        (("data", "build", "coco"), 1, "no dataset 'coco'"),
        (("data", "show", "shapes/tiny", "--data-dir", "no"), 1, "imagen data"),
        (("encode", "tiny", "--data-dir", "no"), 1, "imagen data"),
        (("encode", "tiny", "--crop", "random"), 2, "--crop needs --out"),
        (("encode", "tiny", "--min-side", "64"), 2, "--min-side needs --out"),
        ((*ENCODE, "--sizes", "64", "96"), 2, "--sizes 64 96: each has"),
        ((*ENCODE, "--sizes", "0"), 2, "--sizes (0,): must be"),
        ((*ENCODE, "--sizes", "64", "--max-aspect", "0.5"), 1, "max_aspect=0.5: must be"),
        (("eval", "nowhere"), 1, "no cascade at nowhere"),
        (("sample", "nowhere", "a"), 1, "the embedded cascades are: "),
        (("export", "nowhere", "--out", "o"), 1, "no cascade at nowhere"),
        (("export", "nowhere"), 2, "--out"),
        (("export", "nowhere", "--out", "o", "--dtype", "float8"), 2, "float8"),
        (("convert",), 1, "there is `imagen convert text PATH --out FOLDER`"),
        (("convert", "picture", "p", "--out", "o"), 1, "cannot convert 'picture'; there is"),
        (("convert", "text", "nowhere", "--out", "o"), 1, "no text encoder 'nowhere'"),
        (("convert", "text", "t5_1_1_tiny"), 2, "--out"),
        (("convert", "text", "t5_1_1_tiny", "--out", "."), 1, "exists; give another folder"),
        (("convert", "text", "t5_1_1_tiny", "--out", "o", "--dtype", "float8"), 2, "float8"),
        (("convert", "text", "gs://b/c", "--out", "o"), 1, "gs://b/c cannot be read"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: tuple[str, ...], code: int, says: str, monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(monkeypatch, *arguments) == code
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_an_error_that_nobody_foresaw_has_a_code_of_its_own(monkeypatch, capsys) -> None:
    def fail(arguments: list[str]) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(train, "run", fail)
    assert _run(monkeypatch, "train") == exits.CRASHED
    assert "Traceback" in capsys.readouterr().err


def test_the_installed_command_answers() -> None:
    program = [sys.executable, "-c", "from imagen_jax.cli import main; main()", "--version"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout.strip().count(".") == 2
