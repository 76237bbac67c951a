"""Sampling that is asked to stop keeps its batches, and resumes to the very same images."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagen_jax.runtime import exit_codes
from imagen_jax.sample.progress import SamplingCallbacks, digest_of

PROMPTS = [f"a {size} {colour} circle" for size in ("large", "small") for colour in ("red", "blue")]
PROGRAM = """
import os, sys, time
import jax
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", os.environ["PROGRAMS"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from imagen_jax.sample.progress import SamplingCallbacks
told = SamplingCallbacks.finish_batch
def slowly(self, stage, start, images):
    told(self, stage, start, images)
    print("finished", stage, start, flush=True)
    time.sleep(float(os.environ.get("SLOW", 0)))
SamplingCallbacks.finish_batch = slowly
from imagen_jax.cli import main
main()
"""


def _start(folder: Path, out: str, **env: str) -> subprocess.Popen:
    options = ["--last-stage", "sr64", "--steps", "2", "--batch-size", "1", "--seed", "3"]
    options += ["--out", str(folder / out)]
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            "sample",
            "shapes",
            *PROMPTS,
            *options,
            "--out",
            str(folder / out),
        ],
        env={**os.environ, "PROGRAMS": str(folder / "programs"), "JAX_NUM_CPU_DEVICES": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _images(out: Path) -> list[np.ndarray]:
    listed = json.loads((out / "metadata.json").read_text())["images"]
    assert [p["prompt"] for p in listed] == PROMPTS
    return [np.asarray(Image.open(out / p["file"])) for p in listed]


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_same_command_goes_on_with_the_next_batch(tmp_path: Path, number: int) -> None:
    whole = _start(tmp_path, "whole")
    said, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    assert said.count("finished") == 8
    process = _start(tmp_path, "cut", SLOW="1")
    lines = [process.stdout.readline() for _ in range(6)]  # the third batch of the second stage
    assert lines[-1] == "finished sr64 1\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    if number == signal.SIGTERM:
        assert process.returncode == exit_codes.PREEMPTED, errors
        assert f"the images so far are kept in {tmp_path}/cut/unfinished" in errors
    again = _start(tmp_path, "cut")
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    for one, other in zip(_images(tmp_path / "whole"), _images(tmp_path / "cut"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (tmp_path / "cut" / "unfinished").exists()


def test_kept_batches_are_found_again_and_told(tmp_path: Path) -> None:
    told = []
    callbacks = SamplingCallbacks(lambda *done: told.append(done), tmp_path / "kept")
    assert callbacks.load_batch("base", 8) is None
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    callbacks.finish_batch("base", 8, images)
    np.testing.assert_array_equal(callbacks.load_batch("base", 8), images)
    assert callbacks.load_batch("base", 0) is None
    assert callbacks.load_batch("other", 8) is None
    callbacks.finish_batch("base", 8, images * 0)  # loaded ones are not written again
    np.testing.assert_array_equal(callbacks.load_batch("base", 8), images)
    assert told == [("base", 3), ("base", 3)]
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["base_0000008.npy"]


def test_nothing_is_kept_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SamplingCallbacks().finish_batch("base", 0, np.zeros(3))
    assert SamplingCallbacks().load_batch("base", 0) is None
    assert not list(tmp_path.iterdir())


def test_a_digest_tells_everything_apart() -> None:
    weights = [{"a": np.ones(3, np.float32)}]
    found = {
        digest_of(weights, 1, np.zeros(4)),
        digest_of(weights, 2, np.zeros(4)),
        digest_of(weights, 1, np.zeros((2, 2))),
        digest_of(weights, 1, np.zeros(4, np.float32)),
        digest_of([{"a": np.ones(3, np.float32) * 2}], 1, np.zeros(4)),
        digest_of(weights, 1, None),
    }
    assert len(found) == 6
    assert digest_of(weights, 1, np.zeros(4)) == digest_of([{"b": weights[0]["a"]}], 1, np.zeros(4))
