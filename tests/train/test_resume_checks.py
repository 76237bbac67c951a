"""Changes of a config when a run is resumed: refused, or reported."""

import dataclasses
from pathlib import Path

import pytest

from imagen_jax import config
from imagen_jax.io import run_dir
from imagen_jax.train import resume_checks

BEFORE = config.load("tiny/base8")[0]


def changed(**parts: dict) -> config.Experiment:
    return dataclasses.replace(
        BEFORE,
        **{
            name: dataclasses.replace(getattr(BEFORE, name), **changes)
            for name, changes in parts.items()
        },
    )


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run of `BEFORE` with a checkpoint."""
    run_dir.write_config(tmp_path, changed(data={"examples": 40}))
    (tmp_path / run_dir.CHECKPOINTS / "2").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({}, []),
        (
            {"optim": {"learning_rate": 1e-5, "b1": 0.5}},
            ["optim.learning_rate=1e-05 instead of 0.001", "optim.b1=0.5 instead of 0.9"],
        ),
        ({"optim": {"ema_decay": 0.5}}, ["optim.ema_decay=0.5 instead of 0.9"]),
        ({"train": {"steps": 9}}, ["train.steps=9 instead of 4, which optim.schedule is over"]),
        ({"train": {"seed": 9}}, ["train.seed=9 instead of 0"]),
        (
            {"train": {"batch_size": 4}, "data": {"split": "validation"}},
            ["data.split='validation' instead of 'train'", "train.batch_size=4 instead of 8"],
        ),
        ({"train": {"log_every": 1, "keep": 9, "micro_batches": 2}, "data": {"threads": 0}}, []),
        ({"mesh": {"fsdp": 1}}, []),
        ({"data": {"examples": 41}}, ["data.examples=41 instead of 40"]),
        ({"data": {"examples": 0}}, []),
    ],
)
def test_what_changes_the_weights_is_reported(begun: Path, parts: dict, told: list[str]) -> None:
    assert resume_checks.changed_options(begun, changed(**parts)) == told


def test_another_length_is_nothing_to_a_constant_rate(begun: Path) -> None:
    constant = changed(optim={"schedule": "constant"})
    run_dir.write_config(begun, constant)
    longer = dataclasses.replace(constant, train=dataclasses.replace(constant.train, steps=9))
    assert resume_checks.changed_options(begun, longer) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "adam"}, "optim.kind='adam' instead of 'adafactor'"),
        ({"clip_norm": None, "learning_rate": 0.1}, "optim.clip_norm=None instead of 1.0"),
        ({"frozen": ("stem/*",)}, r"optim.frozen=\('stem/\*',\) instead of \(\)"),
    ],
)
def test_another_optimisers_state_is_refused(begun: Path, changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=f"does not fit: {says}; restore .* --init-from {begun}"):
        resume_checks.changed_options(begun, changed(optim=changes))


def test_a_run_without_a_checkpoint_may_take_another_optimiser(tmp_path: Path) -> None:
    assert resume_checks.changed_options(tmp_path, BEFORE) == []
    run_dir.write_config(tmp_path, BEFORE)
    assert resume_checks.changed_options(tmp_path, changed(optim={"kind": "adam"})) == []


def test_another_model_is_refused(begun: Path) -> None:
    with pytest.raises(
        ValueError, match=r"another config: stage\.name: 'base8' there, 'other' here"
    ):
        resume_checks.changed_options(begun, changed(stage={"name": "other"}))


def test_an_encoder_may_be_named_from_another_folder_but_not_be_another(begun: Path) -> None:
    run_dir.write_config(begun, changed(text={"encoder": "../t5/enc", "identity": "ab"}))
    absolute = {"encoder": "/home/a/t5/enc", "identity": "ab"}
    assert resume_checks.changed_options(begun, changed(text=absolute)) == []
    for other in ({"encoder": "/home/a/t5/dec"}, {"identity": "cd"}):
        with pytest.raises(ValueError, match="another config: text"):
            resume_checks.changed_options(begun, changed(text=absolute | other))
