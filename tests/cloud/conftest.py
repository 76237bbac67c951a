"""A fake cloud: gcloud on PATH and a bucket, and what the launcher leaves in them."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import cloud_storage
import pytest

HERE = Path(__file__).parent
WORKDIR = "gs://bucket/runs/mine"


class Cloud:
    """What the stand-in for gcloud holds; see fake_gcloud.py."""

    def __init__(self, folder: Path, bucket: cloud_storage.Bucket, server: str) -> None:
        self.folder, self.bucket, self.server = folder, bucket, server

    def plan(self, *resources: list[str], workers: int = 1, does: str = "wait", **more) -> None:
        """What becomes of each resource, and what their workers do, a line an attempt."""
        lines = self.folder / "lines"
        lines.write_text(does)
        small = [sys.executable, "-S", "-E", str(HERE / "small_worker.py"), self.server]
        given = {
            "resources": list(resources),
            "workers": workers,
            "worker": [*small, "{folder}", "{attempt}", "{worker}", "{of}", str(lines)],
            **more,
        }
        (self.folder / "plan.json").write_text(json.dumps(given))

    def create(self, name: str) -> None:
        """A queued resource that is up."""
        more = {"script": ["ACTIVE"], "state": "ACTIVE", "node_state": "READY", "pids": []}
        resource = {"name": name, "nodes": [name], "labels": {}, "metadata": {}, "started": True}
        file = self.folder / "resources" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(resource | more))

    def left(self) -> list[str]:
        """Queued resources that exist."""
        return sorted(f.stem for f in (self.folder / "resources").glob("*.json"))

    def calls(self, command: str) -> list[list[str]]:
        """The arguments of each call of a command."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [a for line in lines if command in " ".join(a := json.loads(line))]

    def record(self) -> dict:
        return json.loads(self.bucket.objects["runs/mine/launch/run.json"][1])

    def processes(self) -> list[int]:
        """Workers that still run."""
        mark = str(self.folder).encode()
        return [
            int(file.parent.name)
            for file in Path("/proc").glob("[0-9]*/environ")
            if mark in _read(file) and int(file.parent.name) != os.getpid()
        ]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    folder = tmp_path / "google"
    program = folder / "bin" / "gcloud"
    program.parent.mkdir(parents=True)
    fake = HERE / "fake_gcloud.py"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {fake} "$@"\n')
    program.chmod(0o755)
    with cloud_storage.serve() as (bucket, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FAKE_GCLOUD", str(folder))
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        made = Cloud(folder, bucket, environment["STORAGE_EMULATOR_HOST"])
        yield made
        for process in made.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
