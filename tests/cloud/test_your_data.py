"""The TPU commands of docs/your-data.md: real workers, each with a folder of its own, and a bucket.

Both dry runs come first, and what is run then is the command that they name.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import your_data

ROOT = Path(__file__).parents[2]
PROGRAM = "from imagen_jax.cli import main; main()"
PLACE = ("{folder}", "--attempt", "{attempt}", "--worker", "{worker}", "--of", "{of}")
UP = ["WAITING_FOR_RESOURCES", "ACTIVE"]
COUNT = 24
OFTEN = {"--accelerator": "--every 0.2 --accelerator"}
SHORT = "--train.batch-size 8 --train.steps 2 --optim.warmup-steps 0"
SMALL = {
    "--train.batch-size 256 --stage.model.channels 128": f"{SHORT} --stage.model.channels 32",
    "--out runs/images8": "--steps 2 --out runs/images8",
}
POD_SMALL = {
    "imagen/base64_2b": "tiny/base8",
    "--encoder gs://my-bucket/t5_1_1_xxl": "--encoder t5_1_1_tiny",
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone, in which the reader has photos."""
    folder = tmp_path / "clone"
    (folder / "launch").mkdir(parents=True)
    (folder / "launch" / "requirements.lock").write_text("jax==0.10.2\n")
    shutil.copy(ROOT / ".gitignore", folder)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b.c")
    for command in ("init -q", "add -A", "commit -qm first"):
        subprocess.run(["git", "-C", str(folder), *command.split()], check=True)
    your_data.make_photos(folder / "data" / "photos", COUNT)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(folder)
    return folder


def run(words: list[str]) -> str:
    """What a command prints to stdout; it has to end well."""
    program = [sys.executable, "-c", PROGRAM, *words[1:]] if words[0] == "imagen" else words
    done = subprocess.run(program, check=False, timeout=540, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def run_next(words: list[str]) -> str:
    """Give the command that a dry run names. The dry run's summary."""
    assert "--dry-run" in words
    summary = run(words)
    (line,) = (line for line in summary.splitlines() if line.startswith("# next"))
    run(shlex.split(line.removeprefix("# next")))
    return summary


def place_workers(cloud, folder: Path, count: int) -> None:
    """Machines, each with a folder of its own."""
    for worker in range(count):
        (folder / f"machine-{worker}").mkdir()
    program = ["env", "-C", f"{folder}/machine-{{worker}}", sys.executable, "-c", PROGRAM]
    program += ["launch", "worker", *PLACE, "--beat", "0.2"]
    cloud.plan(UP, workers=count, worker=program)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.cloud
def test_on_a_tpu_machine(cloud, clone: Path, tmp_path: Path) -> None:
    place_workers(cloud, tmp_path, 1)
    for place in (clone, tmp_path / "machine-0"):  # where it is shipped with the commit
        your_data.save_config(place)
    run(["imagen", "encode", "data/photos", "--for", "configs/mine.py", "--out", "data/pairs"])
    commands = your_data.read_commands("On a TPU machine", OFTEN | SMALL)
    for words in commands:
        if words[:3] == ["imagen", "launch", "tpu"]:
            summary = run_next(words)
            assert "8 chips of v5e on 1 host" in summary
            assert f"{COUNT} pairs of sides 32, as the config asks" in summary
        else:
            run(words)
    assert cloud.left() == []
    assert cloud.bucket.names("mine/checkpoints/2/")
    assert len(list((clone / "runs" / "images8").glob("0*.png"))) == 1
    assert not list((tmp_path / "machine-0").glob("pairs*"))


@pytest.mark.cloud
def test_on_a_v4_512(cloud, clone: Path, tmp_path: Path) -> None:
    place_workers(cloud, tmp_path, 2)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(clone / "data" / "photos", ".")
    cloud.bucket.put("tars/00000.tar", (tmp_path / "a.tar").read_bytes())
    # Cloud TPU tells these to jax; processes of one machine are told.
    processes = "--process-id {worker} --processes {workers} --coordinator 127.0.0.1:"
    joined = {
        '--out gs://my-bucket/pairs64"': f'--out gs://my-bucket/pairs64 {processes}{free_port()}"',
        "--pairs gs://my-bucket/pairs64": f"--pairs gs://my-bucket/pairs64 {SHORT} "
        f"{processes}{free_port()}",
    }
    (words,) = your_data.read_commands("On a v4-512", OFTEN | POD_SMALL | joined)
    summary = run_next(words)
    assert "256 chips of v4 on 64 hosts" in summary
    assert "gs://my-bucket/pairs64: --before writes it" in summary
    assert cloud.left() == []
    assert cloud.bucket.names("base64/checkpoints/2/")
    index = json.loads(cloud.bucket.objects["pairs64/store.json"][1])
    assert (index["count"], index["sizes"]) == (COUNT, [8])
    left = {name for machine in tmp_path.glob("machine-*") for name in os.listdir(machine)}
    assert "pairs64" not in left
