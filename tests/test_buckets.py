"""A run in a bucket: trained, resumed, damaged, painted from; through the libraries' drivers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloud_storage
import numpy as np
import pytest
from small_network import FOLDER

from imagen_jax.cli import data, encode
from imagen_jax.io import workdir
from imagen_jax.runtime import exit_codes

RUN = "gs://bucket/runs/one"
PROGRAM = """
import json, os, sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", os.environ["PROGRAMS"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from imagen_jax.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    main()
"""
PAINT = """
import sys, jax, numpy as np
jax.config.update("jax_disable_most_optimizations", True)
import imagen_jax
np.save(sys.argv[2], imagen_jax.load(sys.argv[1]).sample(["a red circle"], seed=1)["base8"])
"""


class Cloud:
    """A bucket, and the commands that are given to it."""

    def __init__(self, folder: Path, bucket: cloud_storage.Bucket, env: dict[str, str]) -> None:
        self.folder, self.bucket = folder, bucket
        self.env = {**os.environ, **env, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
        self.env["PROGRAMS"] = str(folder / "programs")

    def train(self, run: str, *steps: int) -> subprocess.CompletedProcess[str]:
        """A command for each of these numbers, one after another in a process."""
        command = ["train", str(FOLDER / "base8.py"), "--workdir", run]
        command += ["--data-dir", str(self.folder / "data"), "--optim.schedule", "constant"]
        commands = [[*command, "--train.steps", str(number)] for number in steps]
        return self.python(PROGRAM, json.dumps(commands))

    def python(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("buckets")
    data.run(["build", "shapes/tiny", "--data-dir", str(folder / "data"), "--workers", "1"])
    encode.run([str(FOLDER / "base8.py"), "--data-dir", str(folder / "data")])
    with cloud_storage.serve() as (bucket, env):
        yield Cloud(folder, bucket, env)


@pytest.fixture(scope="module")
def resumed(cloud: Cloud) -> Cloud:
    """Trained to step 4, resumed from step 2, in the bucket."""
    done = cloud.train(RUN, 2, 4)
    assert done.returncode == 0, done.stderr
    assert "resumed from step 2" in done.stdout
    return cloud


@pytest.fixture(scope="module")
def trained(resumed: Cloud) -> Cloud:
    """And at once, here."""
    done = resumed.train(str(resumed.folder / "here"), 4)
    assert done.returncode == 0, done.stderr
    return resumed


@pytest.mark.slow
def test_a_bucket_has_what_a_folder_has(trained: Cloud) -> None:
    names = {n.removeprefix("runs/one/") for n in trained.bucket.names("runs/one/")}
    assert {"config.json", "metrics.jsonl"} <= names
    assert {n.split("/")[1] for n in names if n.startswith("checkpoints/")} == {"2", "4"}
    assert len([n for n in names if n.startswith("events.")]) == 2  # one of each start
    _, lines = trained.bucket.objects["runs/one/metrics.jsonl"]
    assert [json.loads(x)["step"] for x in lines.decode().splitlines()] == [2, 4]
    assert not list(Path(trained.folder).glob("gs:*"))
    assert not Path("gs:").exists()


@pytest.mark.slow
def test_pictures_painted_from_a_bucket_are_those_of_a_run_here(trained: Cloud) -> None:
    painted = []
    for number, run in enumerate((RUN, str(trained.folder / "here"))):
        done = trained.python(PAINT, run, str(trained.folder / f"{number}.npy"))
        assert done.returncode == 0, done.stderr
        painted.append(np.load(trained.folder / f"{number}.npy"))
    np.testing.assert_array_equal(*painted)


@pytest.mark.faults
def test_a_damaged_checkpoint_in_a_bucket_is_set_aside(trained: Cloud) -> None:
    bucket = trained.bucket
    for name in bucket.names("runs/one/"):
        bucket.put(name.replace("runs/one/", "runs/damaged/"), bucket.objects[name][1])
    (largest,) = sorted(
        (n for n in bucket.names("runs/damaged/checkpoints/4/state/") if "/d/" in n),
        key=lambda n: len(bucket.objects[n][1]),
    )[-1:]
    content = bucket.objects[largest][1]
    bucket.put(largest, content[: len(content) // 2])
    done = trained.train("gs://bucket/runs/damaged", 6)
    assert done.returncode == 0, done.stderr
    assert "gs://bucket/runs/damaged/checkpoints/4: the checkpoint is" in done.stderr
    assert "set aside into gs://bucket/runs/damaged/damaged/4" in done.stderr
    assert "resumed from step 2" in done.stdout
    assert largest.replace("checkpoints/4", "damaged/4") in bucket.names()
    steps = {n.split("/")[3] for n in bucket.names("runs/damaged/checkpoints/")}
    assert steps == {"4", "6"}


@pytest.mark.parametrize(
    ("refuses", "says"),
    [
        ("runs/one", "gs://bucket/runs/one/lease.json was not written (403 Forbidden): ask for"),
        pytest.param(
            "runs/one/config.json",
            "gs://bucket/runs/one/config.json was not written (403 Forbidden): ask for",
            marks=pytest.mark.faults,
        ),
        pytest.param(
            "runs/one/checkpoints",
            "gs://bucket/runs/one/checkpoints: 3 saves failed, the last",
            marks=pytest.mark.faults,
        ),
    ],
)
def test_a_bucket_that_refuses_loses_nothing(
    resumed: Cloud, refuses: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # which takes what the bucket doesn't
    before = dict(resumed.bucket.objects)
    resumed.bucket.refuses = refuses
    done = resumed.train(RUN, 20)
    resumed.bucket.refuses = None
    assert done.returncode == exit_codes.REFUSED, done.stderr
    assert says in done.stderr
    after = resumed.bucket.objects
    checkpoints = [name for name in before if "/checkpoints/" in name]
    assert {name: after[name] for name in checkpoints} == {n: before[n] for n in checkpoints}


def test_the_driver_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"gs://b/x: buckets need gcsfs; pip install 'imagen_jax"):
        workdir.as_path("gs://b/x")
    assert workdir.as_path("here") == Path("here")
