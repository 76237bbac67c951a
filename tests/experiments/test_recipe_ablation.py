"""The recipe on a miniature: rows that sample otherwise share a run, and done rows stay."""

import dataclasses
import json
from pathlib import Path

import pytest
import recipe_ablation
from lib import runs

from imagen_jax import config
from imagen_jax.text.encoder import TextEncoder

MINIATURE = str(Path(__file__).parent / "miniature")


ROWS = ("baseline", "predicts=v", "guidance=3.0", "predicts=eps")  # the config predicts eps


@pytest.fixture(scope="module")
def options(data_dir: Path, tmp_path_factory) -> recipe_ablation.Options:
    folder = tmp_path_factory.mktemp("recipe")
    return recipe_ablation.Options(
        only=ROWS,
        steps=4,  # as in the config: what one test compiles serves the others
        images=8,
        configs=MINIATURE,
        batch_size=8,
        data_dir=data_dir,
        workdir=folder / "runs",
        out=folder / "out",
    )


@pytest.fixture(scope="module")
def results(options: recipe_ablation.Options) -> dict:
    recipe_ablation.run(options)
    return json.loads((options.out / "recipe_ablation.json").read_text())["results"]


def test_rows_are_trained_and_judged(options: recipe_ablation.Options, results: dict) -> None:
    assert set(results) == {"baseline", "predicts=v", "guidance=3.0"}
    assert results["baseline"]["changes"] == {}
    assert results["predicts=v"]["changes"] == {"stage.diffusion.predicts": ["eps", "v"]}
    for found in results.values():
        assert found["steps"] == 4
        assert found["images_seen"] == 32
        assert found["parameters"] > 10_000
        assert set(found["scores"]) == {"one", "two", "both"}
    # Four steps teach nothing: the zero-initialised head still answers zero, nearly.
    assert results["baseline"]["noise_error"] == pytest.approx(1.0, abs=0.05)
    assert results["predicts=v"]["noise_error"] < 0.6


def test_sampling_alone_trains_nothing(options: recipe_ablation.Options, results: dict) -> None:
    runs = sorted(p.name for p in (options.workdir / "recipe_ablation").iterdir())
    assert runs == ["baseline", "predicts=v"]
    assert results["guidance=3.0"]["loss"] == results["baseline"]["loss"]
    assert results["guidance=3.0"]["changes"] == {"stage.sampler.guidance_weight": [2.0, 3.0]}


def test_the_page_names_every_row(options: recipe_ablation.Options, results: dict) -> None:
    text = (options.out / "recipe_ablation.md").read_text()
    for name in results:
        assert f"| {name} |" in text
    assert "stage.diffusion.predicts eps to v" in text
    assert (options.out / "recipe_ablation.png").stat().st_size > 0


def test_what_is_done_is_not_done_again(
    options: recipe_ablation.Options, results: dict, monkeypatch
) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    recipe_ablation.run(dataclasses.replace(options, only=("baseline", "predicts")[:1]))
    after = json.loads((options.out / "recipe_ablation.json").read_text())["results"]
    assert after == results
    with pytest.raises(ValueError, match="images=8 there, 4 here"):
        recipe_ablation.run(dataclasses.replace(options, images=4))


def test_rows_that_change_nothing_are_told(
    options: recipe_ablation.Options, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="predicts=eps: all of it is what"):
        recipe_ablation.run(dataclasses.replace(options, only=("predicts=eps",), out=tmp_path))


def test_minutes_become_steps_once(
    options: recipe_ablation.Options, monkeypatch, tmp_path: Path
) -> None:
    measured: list[float] = []

    def measure(*_: object, **__: object) -> float:
        measured.append(0.5)
        return 0.5

    monkeypatch.setattr(runs, "measure", measure)
    experiment = config.load(options.configs)[0]
    encoder = TextEncoder.load("t5_1_1_tiny", max_length=experiment.text.max_length)
    timed = dataclasses.replace(options, steps=None, minutes=3.0)
    for _ in range(2):
        assert recipe_ablation._fitting_steps(experiment, tmp_path / "run", encoder, timed) == 360
    assert len(measured) == 1
    longer = dataclasses.replace(timed, minutes=6.0)
    assert recipe_ablation._fitting_steps(experiment, tmp_path / "run", encoder, longer) == 720


def test_the_baseline_can_be_narrowed(options: recipe_ablation.Options) -> None:
    whole = recipe_ablation.baseline(options)
    assert whole == config.load(MINIATURE)[0]
    half = recipe_ablation.baseline(dataclasses.replace(options, width=0.5))
    assert half.stage.model.channels == whole.stage.model.channels // 2
    assert half.optim == whole.optim
