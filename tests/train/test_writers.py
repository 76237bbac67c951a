"""Figures and pictures arrive: in JSON lines, TensorBoard's files, and the real wandb, offline."""

import dataclasses
import importlib.util
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import wandb
from tensorboardX.proto.event_pb2 import Event

from imagen_jax import config
from imagen_jax.train import writers

PICTURES = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)


def _experiment(project: str = "") -> config.Experiment:
    experiment = config.load("tiny/base8")[0]
    train = dataclasses.replace(experiment.train, wandb_project=project)
    return dataclasses.replace(experiment, train=train)


def _write(folder: Path, experiment: config.Experiment, *, start: int) -> list[writers.Writer]:
    found = writers.make_writers(folder, folder, experiment, start=start)
    for writer in found:
        writer.scalars(start + 5, {"loss": 0.25, "grad_norm/stem": 0.5})
        writer.images(start + 5, PICTURES)
        writer.close()
    return found


def _events(file: Path) -> list[Event]:
    """What an event file holds: each record has a length of 8 bytes, and sums beside it."""
    raw, found = file.read_bytes(), []
    while raw:
        size = int.from_bytes(raw[:8], "little")
        found.append(Event.FromString(raw[12 : 12 + size]))
        raw = raw[16 + size :]
    return found


def test_lines_and_events_have_every_figure(tmp_path: Path) -> None:
    assert len(_write(tmp_path, _experiment(), start=0)) == 2
    (events,) = tmp_path.glob("events.*")
    first = events.rename(tmp_path / "first")  # names have the second in which they began
    _write(tmp_path, _experiment(), start=3)
    (second,) = tmp_path.glob("events.*")
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(x["step"], x["loss"], x["grad_norm/stem"]) for x in lines] == [
        (5, 0.25, 0.5),
        (8, 0.25, 0.5),
    ]
    found = [(e.step, v.tag) for e in _events(first) for v in e.summary.value]
    assert {(5, "loss"), (5, "grad_norm/stem")} <= set(found)
    assert any(tag.startswith("samples") for _, tag in found)
    # What an earlier start wrote past its last checkpoint is not shown twice.
    assert [e.step for e in _events(second) if e.session_log.status] == [3]


def test_weights_and_biases_go_on_with_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for start in (0, 3):
        assert len(_write(tmp_path, _experiment("imagen-tests"), start=start)) == 3
        time.sleep(1.0)  # folders have the second in which they began
    name = (tmp_path / writers.RUN_ID).read_text()
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert {run.name.rsplit("-", 1)[1] for run in runs} == {name}
    (file, *_) = (f for run in runs for f in run.glob(f"run-{name}.wandb"))
    raw = file.read_bytes()
    for written in (b"grad_norm/stem", b"imagen-tests", b"ema_decay", b"samples"):
        assert written in raw
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/samples_*.png"))


def test_a_refused_login_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match=r"train.wandb_project=p: No API key .*WANDB_MODE=offline"):
        writers.make_writers(tmp_path, tmp_path, _experiment("p"), start=0)


def test_the_package_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = _experiment("p")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"needs wandb; pip install 'imagen_jax\[wandb\]'"):
        writers.make_writers(tmp_path, tmp_path, experiment, start=0)


def test_events_can_be_read_in_a_folder_that_was_made_again(tmp_path: Path) -> None:
    writer = writers.TensorBoardWriter(tmp_path / "run", start=0)
    writer.scalars(1, {"loss": 0.25})
    shutil.rmtree(tmp_path / "run")
    writer.scalars(2, {"loss": 0.25})
    (events,) = (tmp_path / "run").iterdir()
    assert [e.file_version for e in _events(events)] == ["brain.Event:2", ""]


def test_what_is_not_finite_is_told_by_the_guard_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writers.TensorBoardWriter(tmp_path, start=0).scalars(1, {"loss": float("nan")})
    assert not caplog.records
