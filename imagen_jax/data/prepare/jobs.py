"""A store to make, described so that any process can write its shards (section 2.1).

Source and encoder are opened once in a process, and there: neither is sent from one to another.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from imagen_jax import config
from imagen_jax.data.prepare import encode
from imagen_jax.data.prepare.encode import Counts
from imagen_jax.data.sources import addresses
from imagen_jax.data.sources.base import Address, Source
from imagen_jax.data.store import store
from imagen_jax.data.store.records import TextDtype
from imagen_jax.data.store.store import Store
from imagen_jax.text.encoder import BATCH_TOKENS, TextEncoder

_ONE_AT_A_TIME = threading.Lock()  # a shard's pictures are in memory, and have threads of their own


class JobResources(NamedTuple):
    """What a job takes, and what it makes of it."""

    source: Source
    encoder: TextEncoder
    target: Store


class JobProgress(NamedTuple):
    """How far a job is."""

    target: Store
    missing: list[int]  # numbers of shards
    finished: Store | None = None


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """One store to write."""

    address: Address
    data_dir: Path
    text: config.Text
    sizes: tuple[int, ...]
    folder: Path
    framing: config.Framing | None = None
    filters: config.Filters = config.Filters()
    text_dtype: TextDtype = "bfloat16"
    shard_records: int = store.SHARD_RECORDS
    batch_tokens: int = BATCH_TOKENS

    def open(self) -> JobResources:
        """Errors: as `addresses.open_source`, `TextEncoder.of` and `encode.store_target`."""
        source = addresses.open_source(self.address, self.data_dir)
        encoder = dataclasses.replace(TextEncoder.of(self.text), batch_tokens=self.batch_tokens)
        data = config.Data(dataset=self.address.dataset, split=self.address.split)
        target = encode.store_target(
            encoder, source, folder=self.folder, data=data, text=self.text, sizes=self.sizes
        )
        target = dataclasses.replace(
            target,
            framing=self.framing,
            filters=self.filters,
            text_dtype=self.text_dtype,
            shard_records=self.shard_records,
        )
        return JobResources(source, encoder, target)


def begin_job(job: EncodeJob) -> JobProgress:
    """Begin a job's store or go on with it, for other processes to write the shards it lacks.

    Errors: as `Job.open`; ValueError when the folder holds something else.
    """
    _, encoder, target = job.open()
    if (found := encode.find_finished(target)) is not None:
        return JobProgress(target, [], found)
    empty = encode.encode_empty(encoder, target)  # first: an encoder may compute nonsense
    missing = store.begin_store(target)
    store.write_empty(target, empty)
    encoder.free()  # this process encodes nothing more
    return JobProgress(target, missing)


def write_shard(
    job: EncodeJob, number: int, *, done: Callable[[int], Any], threads: int | None = None
) -> Counts:
    """Write one shard of a job that was begun, unless it is there; its counts.

    Errors: as `opened`; ValueError when a picture does not fit.
    """
    source, encoder, target = open_resources(job)
    with _ONE_AT_A_TIME:
        if target.shard(number).is_file():
            return Counts()
        (counts,) = encode.write_shards(
            source, encoder, target, [number], done=done, threads=threads
        )
        return counts


def open_resources(job: EncodeJob) -> JobResources:
    """What this process's threads share of a job that was begun.

    Errors: as `Job.open`; FileNotFoundError where the job's folder is not seen from here;
    ValueError when source or encoder are not those with which it was begun.
    """
    with _ONE_AT_A_TIME:
        return _opened(job)


@functools.lru_cache(maxsize=1)
def _opened(job: EncodeJob) -> JobResources:
    if not (job.folder / store.HEADER).is_file():
        raise FileNotFoundError(
            f"a worker does not see {job.folder / store.HEADER}: the folder of pairs has to be "
            "one that all workers see, by the same path"
        )
    found = job.open()
    store.begin_store(found.target)
    return found
