"""Efficient U-Net against U-Net: networks of one size, curves, and what equal time means."""

import dataclasses
import json
from pathlib import Path

import efficient_unet
import numpy as np
import pytest
from lib import runs
from lib.results import collect_settings, write_results
from lib.twin import count_parameters, twin

from imagen_jax import config
from imagen_jax.evaluate.eval_set import EvalSet
from imagen_jax.io import run_dir

SCORES = ("colour", "shape", "all")

MINIATURE = str(Path(__file__).parent / "miniature")


@pytest.fixture(scope="module")
def options(data_dir: Path, tmp_path_factory) -> efficient_unet.Options:
    folder = tmp_path_factory.mktemp("efficient_unet")
    return efficient_unet.Options(
        steps=10,
        evaluate_every=5,
        images=8,
        configs=MINIATURE,
        batch_size=8,
        data_dir=data_dir,
        workdir=folder / "runs",
        out=folder / "out",
    )


def test_the_twin_has_as_many_parameters_and_the_same_sides() -> None:
    experiment = config.load("shapes")[1]
    network = twin(experiment)
    ratio = count_parameters(experiment, network) / count_parameters(
        experiment, experiment.stage.model
    )
    assert 0.85 < ratio < 1.18
    side = experiment.stage.train_side
    sides = set(side // np.cumprod([level.stride for level in experiment.stage.model.levels]))
    assert set(network.feature_sides(side)) == sides | {side}
    assert network.text == experiment.stage.model.text


def test_the_config_that_plans_compare_with_is_the_twin() -> None:
    (ours,), (plain,) = config.load("imagen/sr256"), config.load("imagen/sr256_unet")
    assert plain.stage.model == dataclasses.replace(twin(ours), remat="block")
    assert {f.split(".")[1] for f in runs.differences(ours, plain)} == {"name", "model"}


def test_only_the_network_differs(options: efficient_unet.Options) -> None:
    ours, twin = efficient_unet.experiments(options).values()
    assert all(n.startswith("stage.model.") for n in runs.differences(ours, twin))
    assert ours.optim.schedule == "constant"
    with pytest.raises(ValueError, match="no stage with an Efficient U-Net"):
        efficient_unet.experiments(dataclasses.replace(options, configs="tiny/base8"))


def test_a_network_is_trained_measured_and_kept(
    options: efficient_unet.Options, monkeypatch
) -> None:
    # The twin's row is there already, as if the experiment had been cut off after it.
    seconds = {"step_seconds": 0.2, "parameters": 1, "scores": {"both": dict.fromkeys(SCORES, 0.5)}}
    twin = seconds | {"errors": [[5, 30.0], [10, 20.0]], "losses": [[1, 1.0], [10, 0.5]]}
    ours = efficient_unet.experiments(options)["Efficient U-Net"]
    settings = collect_settings(options, ours, leave_out=("configs", "batch_size"))
    write_results(options.out, "efficient_unet", settings, {"U-Net": twin})

    efficient_unet.run(options)
    file = options.out / "efficient_unet.json"
    results = json.loads(file.read_text())["results"]
    assert set(results) == {"Efficient U-Net", "U-Net"}
    assert results["U-Net"] == twin
    found = results["Efficient U-Net"]
    assert [step for step, _ in found["errors"]] == [5, 10]
    assert [step for step, _ in found["losses"]] == list(range(1, 11))
    assert found["step_seconds"] > 0
    assert all(0 < error < 255 for _, error in found["errors"])
    text = (options.out / "efficient_unet.md").read_text()
    assert "| Efficient U-Net |" in text
    assert "| U-Net | 0.000 M | 200 |" in text
    assert "python experiments/efficient_unet.py --" in text
    assert " --steps 10" in text
    run = options.workdir / "efficient_unet" / "EfficientUNet"
    assert isinstance(run_dir.read_config(run).stage.model, config.EfficientUNet)
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    efficient_unet.run(options)
    assert json.loads(file.read_text())["results"] == results


def _found(seconds: float, errors: list[list[float]]) -> dict:
    return {"step_seconds": seconds, "errors": errors, "losses": errors}


def test_equal_time_ends_with_the_faster_network() -> None:
    results = {
        "fast": _found(0.1, [[100, 8.0], [200, 4.0]]),
        "slow": _found(0.25, [[40, 10.0], [100, 4.0], [200, 1.0]]),
    }
    equal = efficient_unet.at_equal_time(results)
    assert equal["fast"] == pytest.approx(
        {"seconds": 20.0, "steps": 200, "errors": 4.0, "losses": 4.0}
    )
    # 20 s are 80 steps of the slow one: two thirds of the way from 10 to 4.
    assert equal["slow"] == pytest.approx(
        {"seconds": 20.0, "steps": 80, "errors": 6.0, "losses": 6.0}
    )
    figure = efficient_unet.plot(results, bilinear=9.0)
    steps, seconds = (axis.lines[1].get_xdata() for axis in figure.axes[:2])
    np.testing.assert_allclose(steps, [40, 100, 200])
    np.testing.assert_allclose(seconds, [10, 25, 50])


def test_bilinear_error_is_that_of_plain_upsampling(options: efficient_unet.Options) -> None:
    stage = config.load(options.configs)[1].stage
    flat = EvalSet(["a"], np.full((1, 64, 64, 3), 40, np.uint8))
    assert efficient_unet.bilinear_error(flat, stage) == 0.0
    stripes = np.tile(np.array([0, 0, 200, 200], np.uint8), 16)  # the mean of each box is 100
    image = np.broadcast_to(stripes[None, None, :, None], (1, 64, 64, 3))
    assert efficient_unet.bilinear_error(EvalSet(["a"], image), stage) == 100.0


def test_a_measurement_made_twice_counts_once(tmp_path: Path) -> None:
    assert efficient_unet._errors(tmp_path) == []
    lines = [{"step": s, "error": e} for s, e in ((5, 3.0), (10, 2.0), (10, 1.5))]
    (tmp_path / "errors.jsonl").write_text("\n".join(json.dumps(x) for x in lines))
    assert efficient_unet._errors(tmp_path) == [[5, 3.0], [10, 1.5]]


def test_steps_must_be_measured_to_the_end() -> None:
    with pytest.raises(ValueError, match="evaluate_every=150 must divide steps=2000"):
        efficient_unet.Options(evaluate_every=150)
