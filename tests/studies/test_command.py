"""`imagen study`: every study explains itself and gets its options."""

import importlib
import sys

import pytest

from imagen_jax import cli
from imagen_jax.cli import study


def _run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["imagen", "study", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("name", study.STUDIES)
def test_every_study_explains_itself(name: str, monkeypatch, capsys) -> None:
    assert _run(monkeypatch, name, "--help") == 0
    out = capsys.readouterr().out
    assert f"usage: imagen study {name}" in out
    assert "--out PATH" in out


@pytest.mark.parametrize("name", study.STUDIES)
def test_flags_become_the_options_of_the_study(name: str, monkeypatch) -> None:
    module = importlib.import_module(f"imagen_jax.studies.{name.replace('-', '_')}")
    got: list[object] = []
    monkeypatch.setattr(module, "run", got.append)
    monkeypatch.setattr("imagen_jax.parallel.compilation_cache.use_cache", lambda: None)
    assert _run(monkeypatch, name, "--pictures", "10") == 0
    assert got == [module.Options(pictures=10)]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 1, "give a study first; there are guidance, "),
        (("thresholds",), 1, "no study 'thresholds'; there are guidance, "),
        (("recipe", "--minute", "3"), 2, "--minute"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: tuple[str, ...], code: int, says: str, monkeypatch, capsys
) -> None:
    assert _run(monkeypatch, *arguments) == code
    assert says in capsys.readouterr().err


def test_the_overview_names_every_study(monkeypatch, capsys) -> None:
    assert _run(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in study.STUDIES)
