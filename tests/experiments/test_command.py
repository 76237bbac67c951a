"""The commands of the experiments: options, and one sentence for bad input."""

import importlib
import sys
from pathlib import Path

import pytest
from lib import command

EXPERIMENTS = sorted(file.stem for file in (Path(__file__).parents[2] / "experiments").glob("*.py"))


@pytest.fixture(autouse=True)
def cache(monkeypatch) -> None:
    monkeypatch.setattr(command.compilation_cache, "use_cache", lambda: None)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_options_of_the_command_line_reach_the_experiment(name: str, monkeypatch) -> None:
    module = importlib.import_module(name)
    got: list[object] = []
    monkeypatch.setattr(sys, "argv", [f"/anywhere/{name}.py", "--out", "elsewhere"])
    command.main(module.Options, got.append, description=module.__doc__)
    assert got == [module.Options(out=Path("elsewhere"))]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--pictures", "8"), 1, "guidance.py: error: --pictures is --images now"),
        (("--until=base16",), 1, "guidance.py: error: --until is --last-stage now"),
        (("--images", "0"), 2, "--images 0: must be a whole number of 1 or more"),
        (("--minute", "3"), 2, "--minute"),
        (("--workdir", "s3://b/r"), 1, "guidance.py: error: --workdir s3://b/r: s3:// is not"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: tuple[str, ...], code: int, says: str, monkeypatch, capsys
) -> None:
    import guidance

    monkeypatch.setattr(sys, "argv", ["experiments/guidance.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        command.main(guidance.Options, pytest.fail, description="")
    assert stop.value.code == code
    assert says in capsys.readouterr().err
