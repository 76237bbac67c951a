"""Runs of an experiment: made from nothing, resumed, and never mistaken for another."""

import dataclasses
import json
from pathlib import Path

import pytest
from lib import runs

from imagen_jax import config
from imagen_jax.data.store import store as stores
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.text.encoder import TextEncoder

MINIATURE = str(Path(__file__).parent / "miniature")


def _with_train(experiment: config.Experiment, **changes: object) -> config.Experiment:
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, **changes))


@pytest.fixture(scope="module")
def experiment() -> config.Experiment:
    return config.load(MINIATURE)[0]


@pytest.fixture(scope="module")
def run(experiment: config.Experiment, data_dir: Path, tmp_path_factory) -> Path:
    """A run that was cut off after its third step, and then resumed.

    It is shorter than the config's interval of the log, and told every step all the same.
    """
    short = _with_train(experiment, log_every=100)
    workdir = tmp_path_factory.mktemp("run")

    def cut_off(step: int, _ema: object, _progress: object) -> None:
        if step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        runs.train(short, workdir, data_dir=data_dir, hooks=[cut_off])
    runs.train(short, workdir, data_dir=data_dir)
    return workdir


def test_a_run_resumes_where_it_was_cut_off(run: Path) -> None:
    assert checkpoints.Checkpoints(run, read_only=True).latest() == 4
    # Step 3 was made twice and is told once, as it was made the second time.
    raw = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in raw] == [1, 2, 3, 3, 4]
    kept = runs.losses(run)
    assert [line["step"] for line in kept] == [1, 2, 3, 4]
    assert kept[2]["time"] == raw[3]["time"]


def test_a_finished_run_is_left_alone(
    run: Path, experiment: config.Experiment, data_dir: Path, monkeypatch
) -> None:
    monkeypatch.setattr(runs.loop, "train", lambda *_, **__: pytest.fail("trained again"))
    runs.train(experiment, run, data_dir=data_dir)
    sampler = dataclasses.replace(experiment.stage.sampler, steps=9)
    sampled_otherwise = dataclasses.replace(
        experiment, stage=dataclasses.replace(experiment.stage, sampler=sampler)
    )
    runs.train(_with_train(sampled_otherwise, log_every=4), run, data_dir=data_dir)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("optim", "learning_rate", 2e-3),
        ("train", "steps", 6),
        ("train", "batch_size", 16),
        ("data", "split", "validation"),
        ("stage", "text_drop_rate", 0.5),
        ("text", "max_length", 16),
    ],
)
def test_another_run_is_refused_by_name(
    run: Path, experiment: config.Experiment, data_dir: Path, part: str, field: str, value: object
) -> None:
    changed = dataclasses.replace(getattr(experiment, part), **{field: value})
    other = dataclasses.replace(experiment, **{part: changed})
    with pytest.raises(ValueError, match=rf"settings \({part}\.{field}: .* there, {value!r} here"):
        runs.train(other, run, data_dir=data_dir)


def test_the_store_serves_every_stage(experiment: config.Experiment, data_dir: Path) -> None:
    store = runs.pairs(experiment, data_dir=data_dir)
    sizes = {e.stage.size for e in config.load("shapes")}
    assert sizes | {16} == set(store.sizes)
    assert store.count == 40
    stores.open_store(data_dir / "encoded" / "shapes-tiny" / "t5_1_1_tiny" / "train")


def test_a_part_of_the_dataset_is_kept_apart(experiment: config.Experiment, data_dir: Path) -> None:
    encoder = TextEncoder.load("t5_1_1_tiny", max_length=experiment.text.max_length)
    whole = runs.pairs(experiment, data_dir=data_dir, encoder=encoder)
    part = runs.pairs(experiment, data_dir=data_dir, encoder=encoder, examples=12)
    assert part.count == 12
    assert part.folder != whole.folder
    captions = [[s.source()[i].captions for i in range(12)] for s in (part, whole)]
    assert captions[0] == captions[1]
    assert runs.pairs(experiment, data_dir=data_dir, examples=40).folder == whole.folder


def test_differences_are_named_and_weighed(experiment: config.Experiment) -> None:
    diffusion = dataclasses.replace(experiment.stage.diffusion, predicts="v")
    sampler = dataclasses.replace(experiment.stage.sampler, steps=9)
    stage = dataclasses.replace(experiment.stage, diffusion=diffusion, sampler=sampler)
    changed = dataclasses.replace(experiment, stage=stage)
    found = runs.differences(experiment, changed)
    assert found == {"stage.diffusion.predicts": ("eps", "v"), "stage.sampler.steps": (2, 9)}
    assert [name for name in found if runs.matters(name)] == ["stage.diffusion.predicts"]
    assert runs.fields(changed)["stage.diffusion.predicts"] == "v"
    assert not {"stage.sampler.steps", "mesh.fsdp", "train.log_every"} & set(runs.fields(changed))


def test_the_speed_is_the_median_without_the_first_interval(
    experiment: config.Experiment, tmp_path: Path
) -> None:
    run_dir.write_config(tmp_path, experiment)
    speeds = (0.5, 16.0, 32.0, 32.0, 1.0, 32.0)  # compiling, then images a second
    lines = [{"step": i, "loss": 1.0, "images_per_s": x} for i, x in enumerate(speeds, 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert runs.step_seconds(tmp_path) == pytest.approx(8 / 32)


def test_a_step_is_timed_by_a_run_that_leaves_nothing(
    experiment: config.Experiment, data_dir: Path, monkeypatch
) -> None:
    monkeypatch.setattr(runs, "TIMED", 8)
    monkeypatch.setattr(runs, "TIMED_EVERY", 2)
    steps: list[int] = []
    train = runs.loop.train

    def spy(short: config.Experiment, workdir: Path, **others: object) -> None:
        train(short, workdir, **others)
        steps.extend(line["step"] for line in runs.losses(workdir))
        steps.append(-workdir.is_dir())

    monkeypatch.setattr(runs.loop, "train", spy)
    encoder = TextEncoder.load("t5_1_1_tiny", max_length=experiment.text.max_length)
    seconds = runs.measure(_with_train(experiment, steps=99), data_dir=data_dir, encoder=encoder)
    assert steps == [2, 4, 6, 8, -1]
    assert 0 < seconds < 10
