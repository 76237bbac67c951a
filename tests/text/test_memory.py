"""How much of the host's memory a checkpoint takes while it is read."""

import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorstore
from flax import serialization, traverse_util

from imagen_jax.text import t5
from imagen_jax.text.checkpoints import lazy_tensors

# XXL's widths and vocabulary, two layers: 2.07 GB, of which the embedding is 526 MB.
CONFIG = t5.T5Config(vocab=32_128, width=4096, layers=2, heads=64, head_dim=64, mlp_width=10_240)
CHUNK = 64 * 2**20  # bytes: T5X's own
KEPT = 8  # a process of so many keeps this share of each tensor; with 0 all is converted
LIMIT = {KEPT: 1.3, 0: 1.5}  # times the largest tensor, beyond what is kept; a tensor's chunks and
# the pieces that are written come to it

MEASURE = """
import json, sys, threading, time
from pathlib import Path
from imagen_jax.text import encoder_folders
from imagen_jax.text.checkpoints import load as loading, native
from imagen_jax.text.tokenizer import Tokenizer
path, kept, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[1]) / "converted"
tokenizer = Tokenizer.load(encoder_folders.EMBEDDED["t5_1_1_tiny"] / "spiece.model")

def load():
    return loading.load_parameters(path, place=lambda _, x: x[: -(-len(x) // kept)].copy())

def convert():
    sizes, layout = loading.find_layout(path)
    native.write(out, sizes, layout, tokenizer=tokenizer, dtype="float32", progress=False)

def used():
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return int(fields["RssAnon"].split()[0]) * 1024

def watch():
    while not done.is_set():
        peaks.append(used())
        time.sleep(0.002)

loading.find_layout(path)  # what the libraries themselves need is there before
done, peaks, before = threading.Event(), [], used()
watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
result = load() if kept else convert()
seconds = time.perf_counter() - start
done.set()
watcher.join()
print(json.dumps({"peak": max(peaks) - before, "seconds": seconds}))
"""


def _write(folder: Path) -> None:
    """A classic checkpoint in T5X's chunks and compression, of noise."""
    rng, leaves = np.random.default_rng(0), {}
    for name, shape in t5.parameter_shapes(CONFIG).items():
        rows = max(1, CHUNK // 4 // math.prod(shape[1:]))
        chunks = [next(n for n in range(rows, 0, -1) if shape[0] % n == 0), *shape[1:]]
        metadata = {
            "shape": list(shape),
            "chunks": chunks,
            "compressor": {"id": "gzip", "level": 1},
        }
        kvstore = {"driver": "file", "path": f"{folder / f'target.{name}'}/"}
        spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
        store = tensorstore.open(spec, create=True, dtype="float32", shape=shape).result()
        for start in range(0, shape[0], chunks[0]):
            part = rng.standard_normal((chunks[0], *shape[1:]), np.float32)
            store[start : start + chunks[0]].write(part).result()
        leaves[name] = {**spec, "dtype": "float32"}
    target = traverse_util.unflatten_dict(leaves, sep=".")
    tree = {"version": 3, "optimizer": {"state": {"step": 1}, "target": target}}
    (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))


@pytest.mark.slow
@pytest.mark.parametrize("kept", LIMIT)
def test_no_more_than_the_largest_tensor_and_what_is_kept(tmp_path: Path, kept: int) -> None:
    _write(tmp_path)
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(kept)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    sizes = [4 * math.prod(shape) for shape in t5.parameter_shapes(CONFIG).values()]
    limit = LIMIT[kept] * max(sizes) + (sum(sizes) / kept if kept else 0)
    print(
        f"{sum(sizes) / 2**30:.2f} GiB, the largest tensor {max(sizes) / 2**20:.0f} MiB: peak "
        f"{found['peak'] / 2**20:.0f} MiB of {limit / 2**20:.0f}, {found['seconds']:.1f} s"
    )
    assert found["peak"] < limit


def test_tensors_wait_for_the_memory_of_others() -> None:
    lock, taken, most = threading.Lock(), [0], [0]

    def read(size: int) -> np.ndarray:
        with lock:
            taken[0] += size
            most[0] = max(most[0], taken[0])
        return np.zeros(size)

    def place(name: str, array: np.ndarray) -> int:
        with lock:
            taken[0] -= len(array)
        return len(array)

    def piece(name: str, size: int):
        whole = lazy_tensors.Parameter(name, (size,), lambda array: array)
        return lazy_tensors.LazyTensor(name, (size,), "here", lambda: read(size), size), (whole,)

    layout = [piece(f"t{n}", size) for n, size in enumerate([10, 3, 4, 100, 60, 50, 7] * 20)]
    found = lazy_tensors.read_parameters(layout, place)
    assert list(found.values()) == [10, 3, 4, 100, 60, 50, 7] * 20
    assert most[0] <= 100


def test_a_tensor_that_cannot_be_read_ends_it() -> None:
    def fail() -> np.ndarray:
        raise ValueError("no")

    bad = lazy_tensors.LazyTensor("bad", (1,), "here", fail, 100)
    good = lazy_tensors.LazyTensor("good", (1,), "here", lambda: np.zeros(1), 100)
    one = lazy_tensors.Parameter("one", (1,), lambda array: array)
    with pytest.raises(ValueError, match="no"):
        lazy_tensors.read_parameters(
            [(bad, (one,)), *[(good, (one,))] * 50], lambda _, array: array
        )
