"""Two processes with four devices each do what one process with eight does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from host_processes import free_port
from small_network import FOLDER

from imagen_jax import config
from imagen_jax.cli import data, encode
from imagen_jax.parallel import distributed

CONFIG = str(FOLDER / "base8.py")
PROGRAM = """
import json, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", sys.argv[3])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
from imagen_jax import config
from imagen_jax.parallel import distributed
if len(sys.argv) > 4:
    distributed.initialize(config.Processes(
        coordinator=sys.argv[4], processes=2, process_id=int(sys.argv[5])))
from imagen_jax.cli import train
out, data_dir = Path(sys.argv[1]), Path(sys.argv[1]).parent / "data"
command = [{CONFIG!r}, "--workdir", str(out / "run"), "--data-dir", str(data_dir)]
command += ["--optim.schedule", "constant"]  # both trainings are one program
train.run([*command, "--train.steps", "2", "--mesh.fsdp", "2", "--mesh.min-shard-bytes", "1024"])
train.run([*command, "--train.steps", "4", "--mesh.fsdp", "2", "--mesh.min-shard-bytes", "1024"])
import numpy as np
import imagen_jax
sampled = imagen_jax.load(out / "run").sample(["a large red circle", ""], seed=5)["base8"]
np.save(out / f"sampled_{jax.process_index()}.npy", sampled)
""".replace("{CONFIG!r}", repr(CONFIG))


def _start(folder: Path, devices: int, *more: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    cache = folder / f"programs_{'_'.join(more[1:])}"
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(devices), str(cache), *more],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("processes")
    data.run(["build", "shapes/tiny", "--data-dir", str(folder / "data"), "--workers", "1"])
    encode.run([CONFIG, "--data-dir", str(folder / "data")])
    address = f"127.0.0.1:{free_port()}"
    started = [
        _start(folder / "one", 8),
        _start(folder / "two", 4, address, "0"),
        _start(folder / "two", 4, address, "1"),
    ]
    try:
        for process in started:
            said, _ = process.communicate(timeout=1200)
            assert process.returncode == 0, said
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
    return {name: folder / name for name in ("one", "two")}


@pytest.mark.slow
def test_losses_are_the_same(runs: dict[str, Path]) -> None:
    """A resumed run, too: each trains two steps, stops, and goes on from its checkpoint."""
    one, two = (
        [json.loads(x) for x in (runs[n] / "run" / "metrics.jsonl").read_text().splitlines()]
        for n in ("one", "two")
    )
    assert [x["step"] for x in one] == [x["step"] for x in two] == [2, 4]  # process 0 alone logs
    for name in ("loss", "grad_norm", "param_norm"):
        np.testing.assert_allclose([x[name] for x in one], [x[name] for x in two], rtol=1e-5)


@pytest.mark.slow
def test_samples_are_the_same_on_every_process(runs: dict[str, Path]) -> None:
    one = np.load(runs["one"] / "sampled_0.npy").astype(int)
    first, second = (np.load(runs["two"] / f"sampled_{i}.npy").astype(int) for i in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - one).max() <= 1  # of 255


def test_a_process_that_is_alone_is_told_the_usual_cause() -> None:
    with pytest.raises(ValueError, match=r"found 1 process\(es\), expected 4.*one worker only"):
        distributed.initialize(config.Processes(processes=4))
    distributed.initialize(config.Processes(processes=1))
    distributed.initialize(config.Processes())


def test_a_process_that_fails_waits_for_no_thread() -> None:
    program = (
        "import threading, time; from imagen_jax.parallel import distributed\n"
        "threading.Thread(target=time.sleep, args=(60,)).start(); distributed.exit_process(1)"
    )
    start = time.monotonic()
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 1
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "given",
    [
        {"coordinator": "localhost:1"},
        {"coordinator": "localhost:1", "process_id": 0},
        {"process_id": 0},
    ],
)
def test_half_an_address_is_refused(given: dict) -> None:
    with pytest.raises(ValueError, match="give all three"):
        config.Processes(**given)
