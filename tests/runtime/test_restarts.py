"""Training whose process is killed ends as if nothing had happened: `pytest -m faults`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from host_processes import free_port

from imagen_jax.cli import data, encode
from imagen_jax.runtime import exit_codes

pytestmark = pytest.mark.faults

STEPS = 80
TRAIN = "from imagen_jax.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("restarts")
    data.run(["build", "shapes/tiny", "--data-dir", str(built / "data"), "--workers", "1"])
    encode.run(["tiny", "--data-dir", str(built / "data")])
    return built


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """A test that fails leaves no training behind; a supervisor passes the signal on."""
    yield
    while Training.started:
        Training.started.pop().terminate()


class Training:
    """A running `imagen train tiny/base8`."""

    started: ClassVar[list[subprocess.Popen]] = []

    def __init__(self, folder: Path, run: str, *more: str, name: str = "0") -> None:
        self.workdir, self.log = folder / run, folder / f"{run}_{name}.log"
        options = {"steps": STEPS, "log-every": 10, "save-every": 10}
        command = [sys.executable, "-c", TRAIN, "train", "tiny/base8"]
        command += ["--workdir", str(self.workdir), "--data-dir", str(folder / "data"), *more]
        command += [x for key, value in options.items() for x in (f"--train.{key}", str(value))]
        programs = {
            "JAX_COMPILATION_CACHE_DIR": str(folder / f"programs_{name}"),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiled in seconds
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", **programs},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.started.append(self.process)

    def child(self) -> int:
        """The number of the process that trains."""
        number = self.process.pid
        (children,) = Path(f"/proc/{number}/task").glob(f"{number}/children")
        return int(children.read_text().split()[0])

    def until(self, step: int) -> None:
        """Wait for a checkpoint."""
        deadline = time.monotonic() + 300
        while not (self.workdir / "checkpoints" / str(step)).is_dir():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self, seconds: float = 300) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.process.terminate()

    def fingerprint(self) -> object:
        """Of the last checkpoint: the same for the same bits."""
        return json.loads((self.workdir / f"checkpoints/{STEPS}/about/metadata").read_text())

    def check_complete(self) -> None:
        """All steps, each logged once or, between checkpoint and crash, twice."""
        lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(x)["step"] for x in lines]
        assert set(range(10, STEPS + 1, 10)) <= set(steps)
        assert steps[-1] == STEPS
        assert max(int(p.name) for p in (self.workdir / "checkpoints").iterdir()) == STEPS


def _pair(folder: Path, run: str, *more: str) -> list[Training]:
    address = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2")
    return [
        Training(folder, run, *address, "--process-id", name, *more, name=name) for name in "01"
    ]


def test_a_killed_child_is_started_again_and_finishes(folder: Path) -> None:
    training = Training(folder, "one", "--max-restarts", "2")
    training.until(20)
    os.kill(training.child(), signal.SIGKILL)
    assert training.end() == 0
    said = training.log.read_text()
    (killed,) = re.findall(r"ended by SIGKILL; this was after step (\d+) of base8; restart 1", said)
    (resumed,) = re.findall(r"resumed from step (\d+)", said)
    assert int(killed) - 20 <= int(resumed) <= int(killed) + 1  # the last checkpoint
    training.check_complete()


def test_a_mistake_in_the_data_folder_is_not_tried_again(folder: Path) -> None:
    training = Training(folder, "wrong", "--max-restarts", "2", "--data-dir", str(folder / "no"))
    assert training.end() == exit_codes.REFUSED
    assert "restart 1" not in training.log.read_text()


@pytest.mark.parametrize("victim", [0, 1])
def test_both_of_two_processes_meet_again(folder: Path, victim: int) -> None:
    pair = _pair(folder, f"two_{victim}", "--max-restarts", "2")
    pair[0].until(20)
    os.kill(pair[victim].child(), signal.SIGKILL)
    assert [one.end() for one in pair] == [0, 0]
    assert "ended by SIGKILL" in pair[victim].log.read_text()
    assert "this one cannot go on alone" in pair[1 - victim].log.read_text()
    assert "resumed from step" in pair[0].log.read_text()
    pair[0].check_complete()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (signal.SIGKILL, "another process closed its connection|process 1 gave no sign"),
        (signal.SIGSTOP, "process 1 gave no sign of life any more"),  # the machine hangs
    ],
)
def test_a_survivor_ends_in_time_and_says_why(folder: Path, number: int, says: str) -> None:
    pair = _pair(folder, f"alone_{number}", "--heartbeat-timeout", "10")
    pair[0].until(20)
    lost = pair[1].child()
    os.kill(lost, number)
    started = time.monotonic()
    try:
        assert pair[0].end(60) == exit_codes.LOST
        assert time.monotonic() - started < 20
        assert re.search(says, pair[0].log.read_text())
    finally:
        os.kill(pair[1].process.pid, signal.SIGCONT)
        if number == signal.SIGSTOP:
            os.kill(lost, signal.SIGKILL)
        pair[1].end(60)


def test_a_notice_to_one_of_two_stops_both_after_the_same_step(folder: Path) -> None:
    """Also asked again and again; what they go on to is what two that nobody stopped end with."""
    whole = _pair(folder, "undisturbed")
    assert [one.end() for one in whole] == [0, 0]
    pair = _pair(folder, "notice")
    pair[0].until(20)
    while pair[1].process.poll() is None:
        pair[1].process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert [one.end() for one in pair] == [exit_codes.PREEMPTED, exit_codes.PREEMPTED]
    said = [one.log.read_text() for one in pair]
    stopped = [re.findall(r"was asked to stop and is saved at step (\d+)", text) for text in said]
    assert stopped[0] == stopped[1]
    assert len(stopped[0]) == 1
    pair = _pair(folder, "notice")
    assert [one.end() for one in pair] == [0, 0]
    assert f"resumed from step {stopped[0][0]}" in pair[0].log.read_text()
    pair[0].check_complete()
    assert pair[0].fingerprint() == whole[0].fingerprint()
