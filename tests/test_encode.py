"""`imagen encode` as it is run: by two processes, killed and run again, and given nonsense."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from imagen_jax.cli import data
from imagen_jax.data import store
from imagen_jax.text.encoder import TextEncoder

PROGRAM = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from imagen_jax.cli import main
main()
"""
SOURCE = ["shapes/tiny", "--encoder", "t5_1_1_tiny", "--sizes", "8", "16", "--max-length", "32"]


def start(data_dir: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, "encode", *arguments, "--data-dir", str(data_dir)]
    return subprocess.Popen(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(data_dir / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encode")
    data.run(["build", "shapes/tiny", "--data-dir", str(folder), "--workers", "1"])
    return folder


@pytest.fixture(scope="module")
def whole(data_dir: Path) -> dict[str, bytes]:
    """A store of one record a shard, written by one process at once."""
    out = data_dir / "whole"
    said = finish(start(data_dir, *SOURCE, "--shard-records", "1", "--out", str(out)))
    assert f"40 (image, encoding) pairs of shapes/tiny (train) in {out}" in said
    assert "of the tokens computed are useful" in said
    return contents(out)


def test_pairs_are_the_encoders_own(data_dir: Path, whole: dict[str, bytes]) -> None:
    encoder = TextEncoder.load("t5_1_1_tiny", max_length=32)
    found = store.open(data_dir / "whole")
    assert (found.identity, found.vocabulary) == (encoder.identity, encoder.vocabulary)
    source = found.source()
    captions = [source[i].caption for i in range(found.count)]
    text, mask = encoder.encode([*captions, ""])
    for index in range(found.count):
        kept = source[index].text.array().astype(np.float32)
        np.testing.assert_allclose(kept, text[index][mask[index]], rtol=2**-8, atol=2e-5)
    empty = found.empty().array().astype(np.float32)
    np.testing.assert_allclose(empty, text[-1][mask[-1]], rtol=2**-8, atol=2e-5)


def test_killed_and_run_again_it_gives_the_same_bytes(
    data_dir: Path, whole: dict[str, bytes]
) -> None:
    out = data_dir / "killed"
    command = [*SOURCE, "--shard-records", "1", "--out", str(out)]
    process = start(data_dir, *command)
    while process.poll() is None and len(list(out.glob("records-*.array_record"))) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    written = {name: content for name, content in contents(out).items() if "tmp" not in name}
    assert store.INDEX not in written  # it was killed before the end
    before = {path: path.stat().st_mtime_ns for path in out.glob("records-*.array_record")}
    finish(start(data_dir, *command))
    assert contents(out) == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing done again


def test_two_processes_give_the_store_of_one(data_dir: Path, whole: dict[str, bytes]) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    out = data_dir / "two"
    command = [*SOURCE, "--shard-records", "1", "--out", str(out)]
    command += ["--coordinator", address, "--processes", "2", "--process-id"]
    started = [start(data_dir, *command, str(i)) for i in range(2)]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    said = [out for out, _ in ended]
    assert sum("pairs of shapes/tiny (train) in" in text for text in said) >= 1
    assert contents(out) == whole


def test_a_wrong_vocabulary_or_identity_is_refused_at_training(
    data_dir: Path, whole: dict[str, bytes]
) -> None:
    for field, wrong in (("vocabulary", "0" * 16), ("identity", "1" * 16)):
        arguments = ["tiny/base8", "--pairs", str(data_dir / "whole"), f"--text.{field}", wrong]
        program = "from imagen_jax.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, "train", *arguments, "--workdir", str(data_dir / "w")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert f"but text.{field}={wrong!r}" in done.stderr
        assert "Traceback" not in done.stderr
