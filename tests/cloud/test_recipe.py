"""The recipe of launch/README.md on one machine and on two: real workers with their own folders."""

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UP = ["WAITING_FOR_RESOURCES", "ACTIVE"]
PROGRAM = "from imagen_jax.cli import main; main()"
PLACE = ("{folder}", "--attempt", "{attempt}", "--worker", "{worker}", "--of", "{of}")
SMALL = {
    "shapes/quickstart": "shapes/tiny --workers 1",
    "imagen encode quickstart": "imagen encode tiny/base8",
    "launch tpu quickstart": "launch tpu tiny/base8",
    "gs://my-bucket/quickstart": "gs://bucket/runs/mine",
}


def read_recipe(accelerator: str) -> list[str]:
    """The words of the first launch on the page, of a small config and on a slice."""
    text = (ROOT / "launch" / "README.md").read_text().replace("\\\n", "")
    (line, *_) = re.findall(r"^imagen launch tpu .*$", text, re.MULTILINE)
    for old, new in (SMALL | {"v5litepod-8": accelerator}).items():
        assert old in line
        line = line.replace(old, new)
    return shlex.split(line)[1:]


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
    command = [sys.executable, "-c", PROGRAM, *read_recipe(accelerator)]
    command += ["--before-once", "touch once", "--every", "0.2", "--ignore-changes", "--"]
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
