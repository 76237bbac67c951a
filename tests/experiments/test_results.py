"""An experiment's results on disk: its command, and numbers that are never mixed up."""

import dataclasses
import json
from pathlib import Path

import pytest
from lib import results
from matplotlib.figure import Figure

from imagen_jax import config


@dataclasses.dataclass(frozen=True)
class Options:
    names: tuple[str, ...] = ("a",)
    steps: int | None = None
    batch_size: int = 8
    out: Path = Path("results")
    workdir: Path = Path("runs")


def test_the_command_states_what_is_not_default() -> None:
    assert results.shell_command("recipe", Options()) == "python experiments/recipe.py"
    options = Options(
        names=("a b", "c"), steps=3, batch_size=4, out=Path("docs"), workdir=Path("w")
    )
    expected = "python experiments/recipe.py --names 'a b' c --steps 3 --batch-size 4 --out docs"
    assert results.shell_command("recipe", options) == expected


def test_settings_are_options_without_folders_and_the_experiment() -> None:
    experiment = config.load("tiny/base8")[0]
    found = results.collect_settings(Options(steps=3), experiment, leave_out=("batch_size",))
    assert found["names"] == ["a"]
    assert found["steps"] == 3
    assert found["stage.size"] == 8
    assert not {"out", "batch_size", "stage.sampler.steps"} & set(found)


def test_numbers_are_read_back_for_the_same_settings_alone(tmp_path: Path) -> None:
    settings = {"steps": 3, "seed": 1}
    assert results.read_results(tmp_path, "recipe", settings) == {}
    results.write_results(tmp_path / "new", "recipe", settings, {"baseline": {"loss": 0.5}})
    assert results.read_results(tmp_path / "new", "recipe", settings) == {"baseline": {"loss": 0.5}}
    with pytest.raises(ValueError, match="steps=3 there, 4 here"):
        results.read_results(tmp_path / "new", "recipe", {"steps": 4, "seed": 1})
    with pytest.raises(ValueError, match="images=None there, 8 here"):
        results.read_results(tmp_path / "new", "recipe", settings | {"images": 8})


def test_the_page_has_table_plot_and_command(tmp_path: Path, capsys) -> None:
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    page = results.Page(
        title="T", text="How.", rows=[{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], figure=figure
    )
    results.write_page(tmp_path / "out", "recipe", page, made_by="python experiments/recipe.py")
    text = (tmp_path / "out" / "recipe.md").read_text()
    table = "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"
    for part in ("# T", "How.", "`python experiments/recipe.py`", table, "(recipe.png)"):
        assert part in text
    assert (tmp_path / "out" / "recipe.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert table in out
    assert f"{tmp_path}/out/recipe.md" in out


def test_results_under_old_keys_are_read(tmp_path: Path) -> None:
    old = {
        "settings": {"pictures": 8, "until": "sr64"},
        "results": {"baseline": {"pictures_seen": 640, "loss": 0.5}},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    found = results.read_results(tmp_path, "recipe", {"images": 8, "last_stage": "sr64"})
    assert found == {"baseline": {"images_seen": 640, "loss": 0.5}}
