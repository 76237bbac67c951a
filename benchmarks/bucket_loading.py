"""Training batches from pairs in a bucket, against the same pairs in a folder of this machine.

    python benchmarks/bucket_loading.py                     12,800 records with T5-XXL's encodings
    python benchmarks/bucket_loading.py --width 64 --images 51200

The bucket is the tests' server in a process of its own, which waits `--latency` before it answers.
In turns, by the clock, from the first batch that is asked for to the last one of an epoch:

* local: the folder;
* cold: the bucket, with an empty cache, which is filled meanwhile;
* warm: the bucket once more, with that cache;
* ranges: the bucket, with a cache that is too small, for a tenth of an epoch.

Each line has the median of the turns, and the least processor time of this process for an image,
on which other jobs have less influence. The last line has the most bytes that the cache took.
"""

import dataclasses
import itertools
import math
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import _synthetic_jpegs
import tyro

from imagen_jax import config
from imagen_jax.data import pipeline
from imagen_jax.data.store import store as stores
from imagen_jax.data.store.block_cache import CacheSettings
from imagen_jax.data.store.store import Store

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
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    costs = dict.fromkeys(kinds, math.inf)
    disk = 0
    for _ in range(options.repeats):
        shutil.rmtree(folder, ignore_errors=True)
        for kind, (store, batches) in kinds.items():
            start = time.process_time()
            rates[kind].append(_rate(store, batches, options))
            costs[kind] = min(costs[kind], (time.process_time() - start) / (batches * BATCH))
            disk = max(disk, sum(path.stat().st_blocks * 512 for path in folder.rglob("*")))
    middle = {kind: statistics.median(found) for kind, found in rates.items()}
    for kind, rate in middle.items():
        share = statistics.median(
            one / base for one, base in zip(rates[kind], rates["local"], strict=True)
        )
        print(
            f"{kind}: {rate:,.0f} images/s ({min(rates[kind]):,.0f} to {max(rates[kind]):,.0f}), "
            f"{share:.0%} of the folder's, over {kinds[kind][1]} batches of {BATCH}; "
            f"{costs[kind] * 1e6:,.0f} µs of processors an image"
        )
    print(f"cache on disk: {disk:,} bytes at most, of {room.size:,}")


def _rate(store: Store, batches: int, options: Options) -> float:
    """Images a second of an epoch's first batches, from opening the store on."""
    text = config.TextConditioning(kv="none")
    stage = config.Stage(
        name="any", size=options.side, model=config.UNet(attention_at=(), text=text)
    )
    data = config.Data(threads=options.threads)
    share = pipeline.ProcessRows.whole(BATCH)
    start = time.perf_counter()
    stream = pipeline.example_stream(store, stage=stage, data=data, share=share, seed=0)
    for _ in range(batches):
        next(stream)
    taken = time.perf_counter() - start
    del stream
    return batches * BATCH / taken


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
