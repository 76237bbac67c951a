"""Runs that are killed, asked to stop, resized: they end as if nothing had happened.

`pytest -m faults` runs them: a quarter of an hour on two cores.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from imagen_jax.cli import data, encode
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.runtime import exit_codes, lease
from imagen_jax.train import state

STEPS, SAVE_EVERY = 24, 2
PROGRAM = """
import os, sys
import jax
jax.config.update("jax_num_cpu_devices", int(os.environ["DEVICES"]))
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", os.environ["PROGRAMS"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from imagen_jax.cli import main
main()
"""

KEY_BIAS = (jax.tree_util.DictKey("key"), jax.tree_util.DictKey("bias"))
LAST_IMPORT = "from imagen_jax.cli import main"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    data.run(["build", "shapes/tiny", "--data-dir", str(folder), "--workers", "1"])
    encode.run(["tiny", "--data-dir", str(folder)])
    return folder


@pytest.fixture(scope="module")
def whole(data_dir: Path) -> state.TrainState:
    """The state that an uninterrupted run ends with."""
    assert start(data_dir, "whole").wait(timeout=600) == 0
    return final(data_dir / "whole")


def start(data_dir: Path, name: str, *more: str, devices: int = 1) -> subprocess.Popen:
    command = ["tiny/base8", "--workdir", str(data_dir / name), "--data-dir", str(data_dir)]
    command += ["--train.steps", str(STEPS), "--train.save-every", str(SAVE_EVERY)]
    command += ["--train.log-every", "1", "--optim.schedule", "constant"]
    with (data_dir / f"{name}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "train", *command, *more],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "DEVICES": str(devices),
                "PROGRAMS": str(data_dir / f"programs-{devices}"),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_run_that_builds_a_large_network_ends_soon(data_dir: Path, number: int) -> None:
    """Of 512 blocks and a width that takes minutes to trace and to compile."""
    name, larger = f"large-{number}", ["--stage.model.res-blocks", "250"]
    process = start(data_dir, name, *larger)
    log = data_dir / f"{name}.log"
    try:
        while "compiling ..." not in log.read_text():
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(5)
        begun = time.monotonic()
        process.send_signal(number)
        if number == signal.SIGINT:
            time.sleep(1)
            process.send_signal(number)
        code = process.wait(timeout=60)
        assert time.monotonic() - begun < 10
    finally:
        process.kill()  # left alone it takes all memory
    assert code in ((75,) if number == signal.SIGTERM else (130, -number))
    assert "before its first step" in log.read_text() or number == signal.SIGINT


def final(run: Path) -> state.TrainState:
    experiment = run_dir.read_config(run)
    _, _, shapes = state.abstract_run(experiment)
    place = mesh.replicated_sharding(mesh.build(auto_layout.choose_axes()))
    target = state.with_shardings(shapes, jax.tree.map(lambda _: place, shapes))
    saves = checkpoints.Checkpoints(run, read_only=True)
    assert saves.latest() == STEPS
    return saves.restore(target)


def reached(run: Path) -> int:
    """The last step that a run has logged."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def disturb(
    data_dir: Path, name: str, strikes: Sequence[signal.Signals], *, seed: int
) -> list[int]:
    """Strike a run so often at random moments, starting it again each time; its exit codes."""
    draw, codes = random.Random(seed), []
    for strike in [*strikes, None]:
        process = start(data_dir, name)
        began, until = reached(data_dir / name), draw.randrange(1, 4)
        while strike is not None and process.poll() is None:
            if reached(data_dir / name) >= min(began + until, STEPS):
                time.sleep(draw.uniform(0.0, 0.3))  # also while a checkpoint is written
                process.send_signal(strike)
                break
            time.sleep(0.005)
        codes.append(process.wait(timeout=600))
    return codes


def assert_equal(found: state.TrainState, expected: state.TrainState) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.faults
def test_killed_twice_and_asked_to_stop_once(data_dir: Path, whole: state.TrainState) -> None:
    strikes = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
    codes = disturb(data_dir, "short", strikes, seed=0)
    assert codes == [-signal.SIGKILL, exit_codes.PREEMPTED, -signal.SIGKILL, 0]
    assert_equal(final(data_dir / "short"), whole)
    said = (data_dir / "short.log").read_text()
    assert "was asked to stop and is saved at step" in said
    assert said.count("resumed from step") >= 2


@pytest.mark.faults
def test_a_second_run_in_the_folder_is_refused(data_dir: Path, whole: state.TrainState) -> None:
    first = start(data_dir, "alone", "--train.save-every", "1")
    while reached(data_dir / "alone") < 1:
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # however long the other takes to start
    second = start(data_dir, "alone")
    code = second.wait(timeout=600)
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=600) == 0
    assert code == exit_codes.REFUSED
    said = (data_dir / "alone.log").read_text()
    assert f"is in use by process {first.pid} of {socket.gethostname()} (imagen train)" in said
    assert_equal(final(data_dir / "alone"), whole)
    assert not (data_dir / "alone" / lease.FILE).exists()


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(5))
def test_killed_six_times(data_dir: Path, whole: state.TrainState, seed: int) -> None:
    name = f"killed-{seed}"
    codes = disturb(data_dir, name, [signal.SIGKILL] * 6, seed=seed)
    assert codes[-1] == 0
    assert codes.count(-signal.SIGKILL) >= 5  # the last strike may come after the end
    assert_equal(final(data_dir / name), whole)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2))
def test_asked_to_stop_five_times(data_dir: Path, whole: state.TrainState, seed: int) -> None:
    """No step is lost: each start goes on from the very step that the one before it ended at."""
    name = f"stopped-{seed}"
    codes = disturb(data_dir, name, [signal.SIGTERM] * 5, seed=10 + seed)
    assert codes[-1] == 0
    assert codes.count(exit_codes.PREEMPTED) >= 4
    assert_equal(final(data_dir / name), whole)
    steps = [
        json.loads(x)["step"] for x in (data_dir / name / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.faults
def test_a_second_signal_changes_nothing(data_dir: Path, whole: state.TrainState) -> None:
    process = start(data_dir, "twice")
    while reached(data_dir / "twice") < 3:
        time.sleep(0.005)
    for _ in range(20):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert process.wait(timeout=600) == exit_codes.PREEMPTED
    assert start(data_dir, "twice").wait(timeout=600) == 0
    assert_equal(final(data_dir / "twice"), whole)


@pytest.mark.faults
def test_the_first_interrupt_saves(data_dir: Path, whole: state.TrainState) -> None:
    process = start(data_dir, "interrupted")
    while reached(data_dir / "interrupted") < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == exit_codes.INTERRUPTED
    said = (data_dir / "interrupted.log").read_text()
    assert "saving; press Ctrl-C again to stop at once" in said
    assert re.search(r"imagen train: interrupted: .* is saved at step \d+", said)
    assert start(data_dir, "interrupted").wait(timeout=600) == 0
    assert_equal(final(data_dir / "interrupted"), whole)


@pytest.mark.faults
def test_the_second_interrupt_stops_at_once(data_dir: Path, monkeypatch) -> None:
    slow = "from imagen_jax.train import checkpointing as c; import time\n"
    slow += "c.CheckpointWriter.save = lambda *_: time.sleep(300)\nfrom imagen_jax.cli import main"
    monkeypatch.setitem(globals(), "PROGRAM", PROGRAM.replace(LAST_IMPORT, slow))
    process = start(data_dir, "at-once", "--train.save-every", "1000")
    log = data_dir / "at-once.log"
    # Before the first step the first one ends it.
    while reached(data_dir / "at-once") < 1:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    while "press Ctrl-C again" not in log.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == exit_codes.INTERRUPTED
    assert log.read_text().endswith("imagen train: interrupted\n")
    assert not list((data_dir / "at-once" / "checkpoints").glob("[0-9]*"))


@pytest.mark.faults
def test_resized_from_eight_devices_to_two_and_back(
    data_dir: Path, whole: state.TrainState
) -> None:
    sharded = ["--mesh.min-shard-bytes", "1024", "--mesh.fsdp"]
    for steps, devices, fsdp in (("8", 8, "4"), ("16", 2, "2"), (str(STEPS), 8, "2")):
        more = [*sharded, fsdp, "--train.steps", steps]
        assert start(data_dir, "resized", *more, devices=devices).wait(timeout=600) == 0
    losses, expected = (
        [json.loads(x)["loss"] for x in (data_dir / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("resized", "whole")
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    ended = jax.tree_util.tree_leaves_with_path(final(data_dir / "resized").params)
    for (path, found), wanted in zip(ended, jax.tree.leaves(whole.params), strict=True):
        if path[-2:] == KEY_BIAS:  # one that softmax takes away: Adam follows its rounding
            continue
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-5)
