"""Two real training processes, preempted three times, end as if nobody had touched them.

`pytest -m faults`: some minutes.
"""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imagen_jax.cli import data, encode
from imagen_jax.runtime import exit_codes

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
UP = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
STEPS = 240
TRAIN = {"steps": STEPS, "log-every": 10, "save-every": 30}
PROGRAM = "from imagen_jax.cli import main; main()"
PLACE = ("{folder}", "--attempt", "{attempt}", "--worker", "{worker}", "--of", "{of}")


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    data.run(["build", "shapes/tiny", "--data-dir", str(folder), "--workers", "1"])
    encode.run(["tiny", "--data-dir", str(folder)])
    return folder


@pytest.fixture(autouse=True)
def _machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are processes with a CPU device each, whose programs compile in seconds."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def launch(cloud, datasets: Path, name: str, *scripts: list[str]) -> int:
    """`imagen launch tpu` from a command line; what becomes of each slice is its script."""
    cache = f"JAX_COMPILATION_CACHE_DIR={datasets.parent}/programs_{{worker}}"
    worker = ["env", cache, sys.executable, "-c", PROGRAM, "launch", "worker", *PLACE]
    cloud.plan(*scripts, workers=2, worker=[*worker, "--beat", "0.2"], grace=60.0)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    options = [word for key, value in TRAIN.items() for word in (f"--train.{key}", str(value))]
    command = [sys.executable, "-c", PROGRAM, "launch", "tpu", "tiny/base8", "--every", "0.2"]
    command += ["--accelerator", "v5litepod-8", "--zone", "us-west4-a", "--provisioning", "spot"]
    command += ["--workdir", f"gs://bucket/runs/{name}", "--run-id", name, "--ignore-changes"]
    command += ["--before", "true", "--"]  # the datasets are there
    command += ["--data-dir", str(datasets), "--coordinator", f"127.0.0.1:{port}"]
    command += ["--process-id", "{worker}", "--processes", "2", *options]
    return subprocess.run(command, cwd=ROOT, check=False, timeout=1500).returncode


def last(cloud, name: str) -> object:
    """The fingerprint of the last checkpoint: the same for the same bits."""
    about = cloud.bucket.objects[f"runs/{name}/checkpoints/{STEPS}/about/metadata"][1]
    return json.loads(about)


def test_three_preemptions_leave_no_trace(cloud, datasets: Path) -> None:
    assert launch(cloud, datasets, "whole", UP) == 0
    assert cloud.left() == []
    preempted = [[*UP, f"preempt@{step}"] for step in (40, 100, 160)]
    assert launch(cloud, datasets, "torn", *preempted, UP) == 0
    assert cloud.left() == []
    assert cloud.processes() == []

    record = json.loads(cloud.bucket.objects["runs/torn/launch/run.json"][1])
    assert len(record["attempts"]) == 4
    assert record["finished"] == "the command ended well on every worker"
    reached = []
    # Of two that save and end, the later may find the other gone.
    noticed = (exit_codes.PREEMPTED, exit_codes.LOST)
    for attempt, codes in ((1, noticed), (2, noticed), (3, noticed), (4, (0,))):
        for worker in range(2):
            place = f"runs/torn/launch/{attempt}/worker-{worker}.json"
            told = json.loads(cloud.bucket.objects[place][1])
            assert told["phase"] == "ended"
            assert told["code"] in codes
        reached += [int(n) for n in re.findall(r"saved at step (\d+)", told["said"])]
    assert len(reached) == 3
    assert reached == sorted(reached)  # saved by the notice, each time further on
    assert last(cloud, "torn") == last(cloud, "whole")
    lines = cloud.bucket.objects["runs/torn/metrics.jsonl"][1].decode().splitlines()
    assert {json.loads(line)["step"] for line in lines} >= set(range(10, STEPS + 1, 10))
