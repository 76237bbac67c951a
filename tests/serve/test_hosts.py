"""Several hosts as one server: processes with networks of their own, one of which answers."""

import base64
import io
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import host_networks
import httpx
import numpy as np
import pytest
from host_processes import Hosts, end, free_port, kill
from PIL import Image
from small_bundle import write_small_bundle

import imagen_jax
from imagen_jax.runtime import exit_codes

QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes most of the time
PORT, PATIENCE = 8000, 300
GENERATE = "/v1/images/generations"


@pytest.fixture(scope="module")
def cascade(tmp_path_factory) -> Path:
    """Two stages with random weights, to load by path."""
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "tiny", dtype="float32")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Hosts, str]]:
    """Two hosts, and the address of the first one's server."""
    with host_networks.join_hosts(2) as (_, networks):
        found = Hosts(tmp_path, QUICK, networks)
        yield found, f"http://{networks[0].address}:{PORT}"
        found.stop()


def start(hosts: Hosts, address: str, cascade: Path, *more: str) -> list[subprocess.Popen]:
    """A server on both, once it is ready."""
    listen = ["--host", address.split("/")[2].split(":")[0], "--port", str(PORT), "--allow-anyone"]
    processes = hosts.start(["serve", str(cascade), *listen, "--batch-size", "2", *more])
    until = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < until
        assert all(process.poll() is None for process in processes), end(processes)
        try:
            if httpx.get(f"{address}/ready").status_code == 200:
                return processes
        except httpx.HTTPError:
            time.sleep(0.1)


def sample(address: str, **body: object) -> np.ndarray:
    """The images of a request."""
    answer = httpx.post(f"{address}{GENERATE}", json=body, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    found = [base64.b64decode(data["b64_json"]) for data in answer.json()["data"]]
    return np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in found])


def one_process(cascade: Path, **options: object) -> np.ndarray:
    """The images of this process, in batches of the server's size."""
    found = imagen_jax.load(cascade)
    images = found.sample(["a red star"] * 3, seed=7, batch_size=2, progress=False, **options)
    return images["sr16"]


@pytest.mark.faults
@pytest.mark.parametrize("killed", [1, 0])
def test_process_0_answers_with_the_devices_of_all_until_a_host_is_lost(
    hosts, cascade, killed: int
) -> None:
    place, address = hosts
    asked = {"prompt": "a red star", "seed": 7, "n": 3}
    processes = start(place, address, cascade, "--warm")
    first = sample(address, **asked)
    difference = first.astype(int) - one_process(cascade)
    assert np.abs(difference).max() <= 1  # a batch is split otherwise: the last bits may differ
    time.sleep(3)  # nothing to do for longer than between two messages
    with ThreadPoolExecutor() as pool:  # among others, of other steps and a stream that is left
        others = [
            pool.submit(sample, address, prompt=f"a {i}", seed=i, num_inference_steps=2 + i % 2)
            for i in range(6)
        ]
        with httpx.stream("POST", f"{address}{GENERATE}", json={**asked, "stream": True}) as left:
            assert left.status_code == 200
        np.testing.assert_array_equal(sample(address, **asked), first)
        assert len({other.result().tobytes() for other in others}) == 6
    kill(processes[killed])
    if killed:
        with pytest.raises((httpx.HTTPError, AssertionError)):
            sample(address, **asked)
    _, said = processes[1 - killed].communicate(timeout=120)
    assert processes[1 - killed].returncode == exit_codes.LOST, said
    assert "this one cannot go on alone; the same command resumes on every host" in said


@pytest.mark.faults
def test_sigterm_of_all_hosts_ends_them_when_requests_are_answered(hosts, cascade) -> None:
    place, address = hosts
    processes = start(place, address, cascade)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(sample, address, prompt="a", n=4, num_inference_steps=200)
        time.sleep(0.5)
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        assert len(asked.result()) == 4
    assert re.search(r"at http://\S+ after", end(processes)[0])


@pytest.mark.faults
def test_hosts_with_other_options_are_refused(hosts, cascade) -> None:
    place, address = hosts
    joined = ["--coordinator", f"{address.split('/')[2].split(':')[0]}:{free_port()}"]
    joined += ["--processes", "2", "--heartbeat-timeout", "10"]
    both = [
        place.run(
            [
                "serve",
                str(cascade),
                *joined,
                "--process-id",
                str(n),
                "--batch-size",
                str(2 + 2 * n),
            ],
            host=n,
        )
        for n in range(2)
    ]
    for said in end(both, code=exit_codes.REFUSED):
        assert "the hosts have different cascades, options or versions" in said
