"""Saves by steps and by the clock; a save that fails is told, tried again, and costs nothing."""

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from imagen_jax import config
from imagen_jax.train import saving
from imagen_jax.train.saving import Saving
from imagen_jax.train.state import TrainState

EXPERIMENT = config.Experiment(stage=config.Stage(name="base", size=64, model=config.UNet()))
STATE = TrainState(step=jnp.int32(5), params={"kernel": jnp.ones(3)}, ema={}, opt_state=())
# A file may not be larger than LIMIT: to a checkpoint that is a full disk.
FULL = """
import os, pathlib, resource, shutil, sys
import jax, numpy as np
from imagen_jax import config
from imagen_jax.train import saving
folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
stage = config.Stage(name="base", size=64, model=config.UNet())
saves = saving.Saving(folder, config.Experiment(stage=stage))
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
            saves._saves.wait()
        except Exception as error:
            saves._trouble = saves._failed(error)
        print("trouble", step, saves.trouble())
        if (mode, step) == ("freed", 4):
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    saves.finish(8, tree(8))
except ValueError as error:
    print("stopped:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
newest = max(saves._saves.steps())
found = saves._saves.restore({"kernel": np.zeros((300, 400), np.float32)}, step=newest)
print("whole", saves._saves.steps(), bool((found["kernel"] == tree(newest)["kernel"]).all()))
print("left", sorted(p.name for p in (folder / "checkpoints").iterdir()))
saves.close()
sys.stdout.flush()
os._exit(0)  # as `imagen` ends after a failure: Orbax's threads wait minutes for a failed save
"""


def options(**changes: object) -> config.Experiment:
    train = dataclasses.replace(EXPERIMENT.train, **changes)
    return dataclasses.replace(EXPERIMENT, train=train)


def due(saves: Saving, last: int) -> list[int]:
    return [step for step in range(1, last + 1) if saves.is_due(step)]


def test_saves_come_by_steps(tmp_path: Path) -> None:
    saves = Saving(tmp_path, options(save_every=4, keep_every=6, save_minutes=0.0))
    assert due(saves, 13) == [4, 6, 8, 12]
    saves.close()


def test_saves_come_by_the_clock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    saves = Saving(tmp_path, options(save_every=1000, log_every=5, save_minutes=2.0))
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
    saves = Saving(tmp_path, options(save_every=1000, log_every=5, save_minutes=2.0))
    now = time.time() + jump
    monkeypatch.setattr(saving.time, "time", lambda: now)
    assert due(saves, 20) == []
    saves.save(5, STATE)
    saves.finish(5, STATE)
    assert due(saves, 20) == []
    saves.close()


def test_the_stall_is_counted(tmp_path: Path) -> None:
    saves = Saving(tmp_path, EXPERIMENT)
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

    saves = Saving(tmp_path, EXPERIMENT)
    monkeypatch.setattr(saving.checkpoint.Checkpoints, "save", gone)
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
            ["trouble 3 a save failed (", "Permission denied", "stopped: ", "whole [1, 2] True"],
        ),
    ],
)
def test_a_disk_that_takes_nothing_loses_no_checkpoint(mode: str, says: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # pytest's own folder is closed to other users
        done = subprocess.run(
            [sys.executable, "-c", FULL, f"{folder}/run", mode], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-2000:]
    for sentence in says:
        assert sentence in done.stdout, done.stdout
