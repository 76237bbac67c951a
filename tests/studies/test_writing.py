"""A study on disk: the command that remakes it, and numbers that are never mixed up."""

import dataclasses
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from imagen_jax import config
from imagen_jax.studies import writing


@dataclasses.dataclass(frozen=True)
class Options:
    names: tuple[str, ...] = ("a",)
    steps: int | None = None
    batch_size: int = 8
    out: Path = Path("studies")
    workdir: Path = Path("runs")


def test_the_command_states_what_is_not_default() -> None:
    assert writing.command("recipe", Options()) == "imagen study recipe"
    options = Options(
        names=("a b", "c"), steps=3, batch_size=4, out=Path("docs"), workdir=Path("w")
    )
    expected = "imagen study recipe --names 'a b' c --steps 3 --batch-size 4 --out docs"
    assert writing.command("recipe", options) == expected


def test_settings_are_options_without_folders_and_the_experiment() -> None:
    experiment = config.load("tiny/base8")[0]
    found = writing.settings(Options(steps=3), experiment, leave_out=("batch_size",))
    assert found["names"] == ["a"]
    assert found["steps"] == 3
    assert found["stage.size"] == 8
    assert not {"out", "batch_size", "stage.sampler.steps"} & set(found)


def test_numbers_are_read_back_for_the_same_settings_alone(tmp_path: Path) -> None:
    settings = {"steps": 3, "seed": 1}
    assert writing.read(tmp_path, "recipe", settings) == {}
    writing.keep(tmp_path / "new", "recipe", settings, {"baseline": {"loss": 0.5}})
    assert writing.read(tmp_path / "new", "recipe", settings) == {"baseline": {"loss": 0.5}}
    with pytest.raises(ValueError, match="steps=3 there, 4 here"):
        writing.read(tmp_path / "new", "recipe", {"steps": 4, "seed": 1})
    with pytest.raises(ValueError, match="pictures=None there, 8 here"):
        writing.read(tmp_path / "new", "recipe", settings | {"pictures": 8})


def test_the_page_has_table_plot_and_command(tmp_path: Path, capsys) -> None:
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    page = writing.Page(
        title="T", text="How.", rows=[{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], figure=figure
    )
    writing.write(tmp_path / "out", "recipe", page, made_by="imagen study recipe")
    text = (tmp_path / "out" / "recipe.md").read_text()
    table = "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"
    for part in ("# T", "How.", "`imagen study recipe`", table, "(recipe.png)"):
        assert part in text
    assert (tmp_path / "out" / "recipe.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert table in out
    assert f"{tmp_path}/out/recipe.md" in out
