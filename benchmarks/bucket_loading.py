"""Training batches from pairs in a bucket, against the same pairs in a folder of this machine.

    python benchmarks/bucket_loading.py                     12,800 records with T5-XXL's encodings
    python benchmarks/bucket_loading.py --width 64 --images 51200

The bucket is the tests' server in a process of its own, which waits `--latency` before it answers.
In turns, by the clock, from the first batch that is asked for to the last one of an epoch:

* local: the folder;
* cold: the bucket, with an empty cache, which is filled meanwhile;
* warm: the bucket once more, with that cache;
* ranges: the bucket, with a cache that is too small, for a tenth of an epoch;
* whole: all shards are copied first, some at once, and the copies read, which this package does not
  do.

Each line has the medians of the turns, also of the seconds until the first batch, the least
processor time of this process for an image, on which other jobs have less influence, and the most
bytes that copies took on the disk.
"""

import dataclasses
import itertools
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import _synthetic_jpegs
import tyro

from imagen_jax import config
from imagen_jax.data import pipeline
from imagen_jax.data.store import cache_filler
from imagen_jax.data.store import store as stores
from imagen_jax.data.store.block_cache import CacheSettings
from imagen_jax.data.store.store import Store
from imagen_jax.io import buckets

BATCH = 256
DIFFERENT = 320  # images; the others are copies of them
ADDRESS = "gs://bucket/pairs"


@dataclasses.dataclass(frozen=True)
class Options:
    """Measured pairs and the bucket's server."""

    images: int = 12_800
    """Records of the store, and images of an epoch."""
    side: int = 64
    """Side of the images, in pixels."""
    width: int = 4096
    """Numbers of a token's encoding; T5-XXL has 4,096."""
    latency: float = 0.02
    """Seconds before each answer of the bucket's server."""
    repeats: int = 3
    """Turns."""
    threads: int = 2
    """Threads that load batches."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = _synthetic_jpegs.make_jpegs(DIFFERENT, options.side)
        many = list(itertools.islice(itertools.cycle(images), options.images))
        local = _synthetic_jpegs.write_store(
            many, root / "pairs", side=options.side, width=options.width
        )
        size = sum(file.bytes for file in local.files)
        print(f"{options.images:,} records, {size / 1e9:.2f} GB, in {len(local.files) - 1} files")
        with _Server(local.folder, options.latency):
            _measure(local, root / "cache", options)


def _measure(local: Store, folder: Path, options: Options) -> None:
    room, epoch = CacheSettings(folder=folder), options.images // BATCH
    remote = dataclasses.replace(stores.open_store(ADDRESS), cache=room)
    small = dataclasses.replace(remote, cache=CacheSettings(folder=folder, size=0))
    kinds = {
        "local": (local, epoch),
        "cold": (remote, epoch),
        "warm": (remote, epoch),
        "ranges": (small, max(epoch // 10, 2)),
        "whole": (dataclasses.replace(local, folder=folder / "whole"), epoch),
    }
    found: dict[str, list[_Turn]] = {kind: [] for kind in kinds}
    for _ in range(options.repeats):
        for kind, (store, batches) in kinds.items():
            if kind != "warm":
                shutil.rmtree(folder, ignore_errors=True)
            start, began = time.perf_counter(), time.process_time()
            if kind == "whole":
                _copy_shards(local, folder / "whole")
            first = _load(store, batches, options) - start
            taken, worked = time.perf_counter() - start, time.process_time() - began
            disk = sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
            images = batches * BATCH
            found[kind].append(_Turn(images / taken, first, worked / images, disk))
    _report(found, {kind: batches for kind, (_, batches) in kinds.items()})


class _Turn(NamedTuple):
    """A measurement."""

    rate: float  # images a second
    first: float  # seconds until the first batch
    cost: float  # seconds of processors an image
    disk: int  # bytes of copies


def _report(found: dict[str, list[_Turn]], batches: dict[str, int]) -> None:
    for kind, turns in found.items():
        rates = [turn.rate for turn in turns]
        share = statistics.median(
            rate / base.rate for rate, base in zip(rates, found["local"], strict=True)
        )
        print(
            f"{kind}: {statistics.median(rates):,.0f} images/s ({min(rates):,.0f} to "
            f"{max(rates):,.0f}), {share:.0%} of the folder's, over {batches[kind]} batches of "
            f"{BATCH}; first batch after {statistics.median(t.first for t in turns):.2f} s; "
            f"{min(t.cost for t in turns) * 1e6:,.0f} µs of processors an image; "
            f"{max(t.disk for t in turns):,} bytes on the disk"
        )


def _copy_shards(local: Store, folder: Path) -> None:
    """Copy all of a store from the bucket, as many files at once as the cache fetches blocks."""
    folder.mkdir(parents=True)

    def copy(name: str) -> None:
        (folder / name).write_bytes(buckets.read(f"{ADDRESS}/{name}"))

    with ThreadPoolExecutor(cache_filler.WIDTH) as pool:
        list(pool.map(copy, [file.name for file in local.files]))


def _load(store: Store, batches: int, options: Options) -> float:
    """Load an epoch's first batches; when the first one was there, by `time.perf_counter`."""
    text = config.TextConditioning(kv="none")
    stage = config.Stage(
        name="any", size=options.side, model=config.UNet(attention_at=(), text=text)
    )
    data = config.Data(threads=options.threads)
    share = pipeline.ProcessRows.whole(BATCH)
    stream = pipeline.example_stream(store, stage=stage, data=data, share=share, seed=0)
    next(stream)
    first = time.perf_counter()
    for _ in range(batches - 1):
        next(stream)
    del stream
    return first


class _Server:
    """The bucket, in another process, while it is entered."""

    def __init__(self, folder: Path, latency: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, other = context.Pipe()
        arguments = (str(folder), latency, other)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)

    def __enter__(self) -> None:
        self._process.start()
        os.environ |= self._end.recv()

    def __exit__(self, *_: object) -> None:
        self._end.send(None)
        self._process.join()


def _serve(folder: str, latency: float, end: Connection) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    import cloud_storage

    with cloud_storage.serve() as (bucket, environment):
        for file in Path(folder).iterdir():
            bucket.put(f"pairs/{file.name}", file.read_bytes())  # which digests it, as uploads do
        bucket.latency = latency
        end.send(environment)
        end.recv()


if __name__ == "__main__":
    main()
