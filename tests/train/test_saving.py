"""Saves by steps and by the clock; a save that fails is told, tried again, and costs nothing."""

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.io import run_dir
from imagen_jax.io.checkpoints import Checkpoints
from imagen_jax.train import checkpointing
from imagen_jax.train.checkpointing import CheckpointWriter
from imagen_jax.train.state import TrainState

EXPERIMENT = config.Experiment(stage=config.Stage(name="base", size=64, model=config.UNet()))
STATE = TrainState(step=jnp.int32(5), params={"kernel": jnp.ones(3)}, ema={}, opt_state=())
# A file may not be larger than LIMIT: to a checkpoint that is a full disk.
FULL = """
import os, pathlib, resource, shutil, sys
import jax, numpy as np
from imagen_jax import config
from imagen_jax.train import checkpointing
folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
stage = config.Stage(name="base", size=64, model=config.UNet())
saves = checkpointing.CheckpointWriter(folder, config.Experiment(stage=stage))
checkpointing.PAUSE = 0.0
tree = lambda i: {"kernel": jax.random.normal(jax.random.key(i), (300, 400))}
for step in (1, 2):
    saves.save(step, tree(step))
saves.finish(2, tree(2))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
if mode == "gone":
    shutil.rmtree(folder)
elif mode == "readonly":
    (folder / "checkpoints").chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may write everywhere
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
try:
    for step in range(3, 9):
        saves.save(step, tree(step))
        try:
            saves._checkpoints.wait()
        except Exception as error:
            saves._failed(error)
        print("trouble", step, saves.failure())
        if (mode, step) == ("freed", 4):
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    saves.finish(8, tree(8))
except ValueError as error:
    print("stopped:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
newest = max(saves._checkpoints.steps())
found = saves._checkpoints.restore({"kernel": np.zeros((300, 400), np.float32)}, step=newest)
print("whole", saves._checkpoints.steps(), bool((found["kernel"] == tree(newest)["kernel"]).all()))
print("left", sorted(p.name for p in (folder / "checkpoints").iterdir()))
saves.close()
sys.stdout.flush()
os._exit(0)  # as `imagen` ends after a failure: Orbax's threads wait minutes for a failed save
"""


def options(**changes: object) -> config.Experiment:
    train = dataclasses.replace(EXPERIMENT.train, **changes)
    return dataclasses.replace(EXPERIMENT, train=train)


def due(saves: CheckpointWriter, last: int) -> list[int]:
    return [step for step in range(1, last + 1) if saves.is_due(step)]


def test_saves_come_by_steps(tmp_path: Path) -> None:
    saves = CheckpointWriter(tmp_path, options(save_every=4, keep_every=6, save_minutes=0.0))
    assert due(saves, 13) == [4, 6, 8, 12]
    saves.close()


def test_saves_come_by_the_clock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now[0])
    saves = CheckpointWriter(tmp_path, options(save_every=1000, log_every=5, save_minutes=2.0))
    assert due(saves, 20) == []
    now[0] += 121
    assert due(saves, 20) == [5, 10, 15, 20]  # asked when a line is logged, until one is saved
    saves.save(5, STATE)
    assert due(saves, 20) == []
    saves.close()


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_is_set_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    saves = CheckpointWriter(tmp_path, options(save_every=1000, log_every=5, save_minutes=2.0))
    now = time.time() + jump
    monkeypatch.setattr(checkpointing.time, "time", lambda: now)
    assert due(saves, 20) == []
    saves.save(5, STATE)
    saves.finish(5, STATE)
    assert due(saves, 20) == []
    saves.close()


def test_the_stall_is_counted(tmp_path: Path) -> None:
    saves = CheckpointWriter(tmp_path, EXPERIMENT)
    assert saves.stall_seconds == 0.0
    saves.save(1, STATE)
    assert 0.0 < saves.stall_seconds < 60.0
    saves.close()


def test_what_devices_report_is_no_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process is gone, say: the run ends with that, at once."""

    def gone(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("Gloo all-reduce failed: Connection closed by peer")

    saves = CheckpointWriter(tmp_path, EXPERIMENT)
    monkeypatch.setattr(checkpointing.checkpoints.Checkpoints, "save", gone)
    with pytest.raises(jax.errors.JaxRuntimeError, match="closed by peer"):
        saves.save(1, STATE)
    saves.close()


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (
            "full",
            [
                "trouble 3 a save failed (",
                "File too large",
                "no room for step 6 either (",
                "stopped: ",
                "3 saves failed, the last one so:",
                "the newest whole checkpoint is 2; make room",
                "whole [1, 2] True",
                "left ['1', '2']",
            ],
        ),
        ("freed", ["trouble 3 a save failed (", "trouble 5 \n", "whole [7, 8] True"]),
        ("gone", ["trouble 3 \n", "whole [7, 8] True"]),
        (
            "readonly",
            [
                "trouble 3 a save failed (",
                "Permission denied",
                "step 6 is saved in ",
                "fallback/run-",
                "/checkpoints/6 instead: make room or check the rights, then `mv ",
                "whole [1, 2] True",
            ],
        ),
    ],
)
def test_a_disk_that_takes_nothing_loses_no_checkpoint(mode: str, says: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # pytest's own folder is closed to other users
        fallback = Path(folder, "fallback")
        fallback.mkdir()
        fallback.chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", FULL, f"{folder}/run", mode],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": f"{folder}/run", "TMPDIR": str(fallback)},
        )
    assert done.returncode == 0, done.stderr[-2000:]
    for sentence in says:
        assert sentence in done.stdout, done.stdout
    assert not done.stderr  # Orbax would show stacks of its threads


def test_what_cannot_be_saved_is_saved_elsewhere_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that the sentence gives is run as it stands; the run then resumes from there."""
    write = checkpointing.checkpoints.Checkpoints.save

    def full(saves: checkpointing.checkpoints.Checkpoints, *given: object) -> None:
        if tmp_path / "the run" in saves.folder.parents:
            raise OSError(28, "No space left on device")
        write(saves, *given)

    monkeypatch.setattr(checkpointing, "PAUSE", 0.0)
    monkeypatch.setattr(
        checkpointing, "FALLBACKS", ("/dev/null/nowhere", str(tmp_path / "fallback"))
    )
    monkeypatch.setattr(checkpointing.checkpoints.Checkpoints, "save", full)
    saves = CheckpointWriter(tmp_path / "the run", EXPERIMENT)
    saves.save(5, STATE)
    with pytest.raises(ValueError, match=r"No space left .*step 5 is saved in .*fallback") as told:
        saves.finish(5, STATE)
    saves.close()
    (command,) = re.findall("`(.*?)`", str(told.value))
    subprocess.run(command, shell=True, check=True, cwd=tmp_path / "fallback")
    again = CheckpointWriter(tmp_path / "the run", EXPERIMENT)
    step, found = again.restore(STATE)
    again.close()
    assert step == 5
    jax.tree.map(np.testing.assert_array_equal, found, STATE)


def test_room_that_comes_back_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, write, fails = [1000.0], checkpointing.checkpoints.Checkpoints.save, [True]

    def full(*given: object) -> None:
        if fails[0]:
            raise OSError(28, "No space left on device")
        write(*given)

    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpointing.checkpoints.Checkpoints, "save", full)
    saves = CheckpointWriter(tmp_path, EXPERIMENT)
    saves.save(1, STATE)
    assert "No space left" in saves.failure()
    assert not saves.failure()  # told once
    assert not saves.is_retry_due()  # nor does every step try again at once
    now[0] += checkpointing.PAUSE
    assert saves.is_retry_due()
    fails[0] = False
    saves.save(4, STATE)
    saves.finish(4, STATE)
    assert not saves.is_retry_due()
    assert saves._checkpoints.steps() == [4]
    saves.close()


@pytest.mark.parametrize(
    ("last_sound", "says", "left"),
    [
        (9, "resumes from step 4", [2, 4]),
        (3, "resumes from step 4; .* go back to step 2, which was sound, first", [2]),
        (-1, "resumes from step 4; .* start from scratch, first", []),
    ],
)
def test_the_way_back_leads_to_the_last_sound_checkpoint(
    tmp_path: Path, last_sound: int, says: str, left: list[int]
) -> None:
    folder = tmp_path / "a run"
    saves = CheckpointWriter(folder, options(keep=2))
    assert saves.resume_advice(last_sound) == "the same command then starts from scratch"
    for step in (2, 4):
        saves.save(step, STATE)
    told = saves.resume_advice(last_sound)
    saves.close()
    assert re.search(says, told)
    for command in re.findall("`(.*?)`", told):
        subprocess.run(command, shell=True, check=True)
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir()) == left


def test_a_background_save_that_fails_at_the_end_hides_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(saves: checkpointing.checkpoints.Checkpoints) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing.checkpoints.Checkpoints, "close", full)
    with (
        contextlib.closing(CheckpointWriter(tmp_path / "run", EXPERIMENT)),
        pytest.raises(KeyError),
    ):
        raise KeyError
    assert "a save failed ([Errno 28] No space left on device)" in capsys.readouterr().err


def test_a_folder_that_was_deleted_is_a_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run_dir.write_config(folder, EXPERIMENT)
    saves = CheckpointWriter(folder, EXPERIMENT)
    saves.has_config = True
    saves.save(1, STATE)
    saves.finish(1, STATE)
    assert not capsys.readouterr().err
    shutil.rmtree(folder)
    saves.save(2, STATE)
    assert capsys.readouterr().err == f"{folder}/config.json was gone: it is written again\n"
    saves.finish(2, STATE)
    saves.close()
    assert run_dir.read_config(folder) == EXPERIMENT
    assert Checkpoints(folder, read_only=True).steps() == [2]
