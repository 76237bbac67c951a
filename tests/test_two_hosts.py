"""Own images to samples on two hosts that share a bucket alone, with one host killed on the way.

Each host has its folder, home, cache and, where Linux lets us, network and name.
"""

import io
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloud_storage
import host_networks
import jax
import jpegs
import numpy as np
import pytest
from host_processes import Hosts, end, kill
from PIL import Image

from imagen_jax.data.store import store
from imagen_jax.io import checkpoints, run_dir, workdir
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.runtime import exit_codes
from imagen_jax.train import state

PHOTOS, STEPS, SAVE_EVERY = 24, 16, 2
CONFIG = "tiny/base8"
ENCODE = ["encode", "tars:gs://bucket/tars", "--for", CONFIG, "--shard-records", "1", "--out"]
TRAIN = ["train", CONFIG, "--pairs", "gs://bucket/pairs", "--train.steps", str(STEPS)]
TRAIN += ["--train.save-every", str(SAVE_EVERY), "--train.log-every", "1"]
TRAIN += ["--mesh.fsdp", "2", "--mesh.min-shard-bytes", "1024"]  # each host has half of the state
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes most of the time


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Iterator[tuple[Hosts, cloud_storage.Bucket]]:
    """Two hosts and the bucket that both see."""
    with (
        host_networks.join_hosts(2) as (address, networks),
        cloud_storage.serve_here(monkeypatch, address) as bucket,
    ):
        hosts = Hosts(tmp_path, QUICK, networks)
        yield hosts, bucket
        hosts.stop()


def strike(
    processes: list[subprocess.Popen], host: int, when: Callable[[], bool]
) -> tuple[int, str]:
    """Kill one of two hosts at a moment; the other one's exit code, in time, and its errors."""
    deadline = time.monotonic() + 300
    while not when():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.005)
    kill(processes[host])
    began = time.monotonic()
    _, errors = processes[1 - host].communicate(timeout=120)
    assert time.monotonic() - began < 60
    return processes[1 - host].returncode, errors


def newest(bucket: cloud_storage.Bucket) -> int:
    """The last step that is saved whole."""
    names = [name.split("/") for name in bucket.names("run/checkpoints/")]
    return max((int(n[2]) for n in names if n[3:] == ["commit_success.txt"]), default=0)


def final(run: str) -> state.TrainState:
    """The state that a run ends with."""
    folder = workdir.as_path(run)
    _, _, shapes = state.abstract_run(run_dir.read_config(folder))
    sharding = mesh.replicated_sharding(mesh.build(auto_layout.choose_axes()))
    target = state.with_shardings(shapes, jax.tree.map(lambda _: sharding, shapes))
    saves = checkpoints.Checkpoints(folder, read_only=True)
    assert saves.latest() == STEPS
    return saves.restore(target)


def put_photos(bucket: cloud_storage.Bucket) -> None:
    """Put a tar of captioned photos into the bucket."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(PHOTOS):
            photo = jpegs.photo((40 + number, 30), seed=number)
            caption = f"photo number {number}".encode()
            for name, content in ((f"{number:03d}.jpg", photo), (f"{number:03d}.txt", caption)):
                about = tarfile.TarInfo(name)
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    bucket.put("tars/00000.tar", file.getvalue())


def check_encoding(hosts: Hosts, bucket: cloud_storage.Bucket) -> None:
    """Encode with a host killed; the store is that of one process, to the byte."""
    end([hosts.run([*ENCODE, "alone"])])
    bucket.latency = 0.5  # so that the other host is at work for longer than the heartbeats' limit
    for killed in (1, 0):
        count = len(bucket.names("pairs/records-")) + 3
        both = hosts.start([*ENCODE, "gs://bucket/pairs"])
        code, said = strike(both, killed, lambda n=count: len(bucket.names("pairs/records-")) >= n)
        assert code == exit_codes.LOST, said
        assert "this one cannot go on alone; the same command resumes after what is" in said
        assert count <= len(bucket.names("pairs/records-")) < PHOTOS
    bucket.latency = 0.0
    assert f"pairs/{store.INDEX}" not in bucket.objects
    end(hosts.start([*ENCODE, "gs://bucket/pairs"]))
    alone = {file.name: file.read_bytes() for file in (hosts.folders[0] / "alone").iterdir()}
    names = bucket.names("pairs/")
    assert {name.removeprefix("pairs/"): bucket.objects[name][1] for name in names} == alone


def check_training(hosts: Hosts, bucket: cloud_storage.Bucket) -> None:
    """Train with each host killed once; the run ends with the bits of an undisturbed one."""
    end(hosts.start([*TRAIN, "--workdir", "gs://bucket/whole"]))
    command, saved = [*TRAIN, "--workdir", "gs://bucket/run"], 0
    for killed in (1, 0):
        before = saved
        code, said = strike(hosts.start(command), killed, lambda last=before: newest(bucket) > last)
        saved = newest(bucket)
        assert before < saved < STEPS
        assert code == exit_codes.LOST, said
        assert "this one cannot go on alone" in said
    assert f"resumed from step {saved}" in end(hosts.start(command))[0]
    jax.tree.map(
        np.testing.assert_array_equal, final("gs://bucket/run"), final("gs://bucket/whole")
    )
    for folder in hosts.folders:  # copies of the pairs
        assert list((folder / "home" / ".cache" / "imagen_jax" / "pairs").iterdir())


@pytest.mark.faults
def test_two_hosts_encode_train_and_sample_through_a_bucket_with_one_killed(
    place: tuple[Hosts, cloud_storage.Bucket],
) -> None:
    hosts, bucket = place
    put_photos(bucket)
    check_encoding(hosts, bucket)
    check_training(hosts, bucket)
    sampled = []
    for host, run in enumerate(("run", "whole")):
        more = ["photo number 3", "--images-per-prompt", "2", "--out", "images"]
        end([hosts.run(["sample", f"gs://bucket/{run}", *more], host)])
        images = hosts.folders[host] / "images"
        files = sorted(images.glob("0*.png"))  # whose bytes have the run's name
        sampled.append([np.asarray(Image.open(file)) for file in files])
    np.testing.assert_array_equal(*sampled)
    assert len(sampled[0]) == 2
    assert not list(Path().glob("gs:*"))
