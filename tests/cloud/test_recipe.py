"""The README's recipe on one machine and on two: real workers, each with a folder of its own."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UP = ["WAITING_FOR_RESOURCES", "ACTIVE"]
PROGRAM = "from imagen_jax.cli import main; main()"
PLACE = ("{folder}", "--attempt", "{attempt}", "--worker", "{worker}", "--of", "{of}")
DRAW = ("imagen data build shapes/tiny --workers 1", "imagen encode tiny/base8")


@pytest.mark.cloud
@pytest.mark.parametrize(("accelerator", "workers"), [("v5litepod-8", 1), ("v5litepod-16", 2)])
def test_the_recipe(accelerator: str, workers: int, cloud, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for worker in range(workers):
        (tmp_path / f"machine-{worker}").mkdir()
    program = ["env", "-C", f"{tmp_path}/machine-{{worker}}", sys.executable, "-c", PROGRAM]
    program += ["launch", "worker", *PLACE, "--beat", "0.2"]
    cloud.plan(UP, workers=workers, worker=program)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, "launch", "tpu", "tiny/base8", "--every", "0.2"]
    command += ["--accelerator", accelerator, "--zone", "us-west4-a", "--ignore-changes"]
    command += ["--workdir", "gs://bucket/runs/mine", "--before", *DRAW]
    command += ["--before-once", "touch once", "--"]
    command += ["--coordinator", f"127.0.0.1:{port}", "--process-id", "{worker}"]
    command += ["--processes", "{workers}"]
    done = subprocess.run(
        command, cwd=ROOT, check=False, timeout=540, capture_output=True, text=True
    )
    logs = "".join(file.read_text() for file in cloud.folder.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    assert cloud.left() == []
    assert cloud.record()["finished"] == "the command ended well on every worker"
    assert cloud.bucket.names("runs/mine/checkpoints/4/")
    stores = [
        {file.name: file.read_bytes() for file in folder.glob("data/encoded/*/*/*/*")}
        for folder in sorted(tmp_path.glob("machine-*"))
    ]
    assert len(stores) == workers
    assert [file.parent.name for file in tmp_path.glob("machine-*/once")] == ["machine-0"]
    assert "store.json" in stores[0]
    assert all(store == stores[0] for store in stores)  # whole, and the same on each machine
