"""A store to make, described so that any process can write its shards (section 2.1).

Source and encoder are opened once in a process, and there: neither is sent from one to another.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from imagen_jax import config
from imagen_jax.data.prepare import encode
from imagen_jax.data.prepare.encode import SINGLE_PROCESS, Counts, ProcessShare, Written
from imagen_jax.data.sources import addresses
from imagen_jax.data.sources.base import Address, Source
from imagen_jax.data.store import store
from imagen_jax.data.store.records import TextDtype
from imagen_jax.data.store.store import Store
from imagen_jax.io import folder_files
from imagen_jax.io.workdir import Workdir
from imagen_jax.text.encoder import BATCH_TOKENS, TextEncoder
from imagen_jax.text.encoder_folders import read_t5_config

_ONE_AT_A_TIME = threading.Lock()  # a shard's images are in memory, and have threads of their own


class JobResources(NamedTuple):
    """Source, encoder and store of a job."""

    source: Source
    encoder: TextEncoder
    target: Store


class JobProgress(NamedTuple):
    """Progress of a job."""

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
    folder: Workdir
    framing: config.Framing | None = None
    filters: config.Filters = config.Filters()
    text_dtype: TextDtype = "bfloat16"
    shard_records: int = store.SHARD_RECORDS
    batch_tokens: int = BATCH_TOKENS

    def open_source(self) -> Source:
        """Errors: as `addresses.open_source`."""
        return addresses.open_source(self.address, self.data_dir)

    def open(self) -> JobResources:
        """Errors: as `addresses.open_source`, `TextEncoder.from_config`, `encode.store_target`."""
        source = self.open_source()
        encoder = dataclasses.replace(
            TextEncoder.from_config(self.text), batch_tokens=self.batch_tokens
        )
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


def text_settings(encoder: str, **options: Any) -> config.Text:
    """Return the text config of an encoder, with the width that it has.

    Errors: ValueError for an encoder that is not there.
    """
    return config.Text(encoder=encoder, width=read_t5_config(encoder).width, **options)


def config_jobs(
    experiments: Sequence[config.Experiment], data_dir: Path, **storage: Any
) -> list[EncodeJob]:
    """Return a job for each (dataset, split) of a config, with the sizes of its stages.

    Images of files may have any size; those of embedded and of TFDS's datasets have to fit.
    `storage` is `text_dtype`, `shard_records` and `batch_tokens` of every job.
    """
    stages: dict[tuple[str, str], list[config.Experiment]] = {}
    for experiment in experiments:
        data = experiment.data
        stages.setdefault((data.dataset, data.split), []).append(experiment)
    return [
        EncodeJob(
            address=(address := addresses.parse_dataset(dataset, split)),
            data_dir=data_dir,
            text=(text := group[0].text),
            framing=config.Framing() if address.dataset.startswith(addresses.PATHS) else None,
            sizes=tuple(sorted({e.stage.size for e in group})),
            folder=encode.store_path(data_dir, dataset=dataset, split=split, encoder=text.encoder),
            **storage,
        )
        for (dataset, split), group in stages.items()
    ]


def prepare_dataset(
    job: EncodeJob, *, share: ProcessShare = SINGLE_PROCESS, progress: bool = True
) -> Written:
    """Write a job's store, as `imagen encode` does; what is there already is kept.

    Errors: as `EncodeJob.open` and `encode.write_store`.
    """
    source, encoder, target = job.open()
    return encode.write_store(source, encoder, target, share=share, progress=progress)


def find_store(
    experiment: config.Experiment,
    data_dir: Path,
    pairs: Workdir | None = None,
    *,
    command: str = store.COMMAND,
) -> Store:
    """Return the pairs that an experiment trains on: those in `pairs`, or its dataset's.

    `command` is the one that makes them, for errors to name.
    Errors: FileNotFoundError, ValueError; see `store.open_store`.
    """
    data, text = experiment.data, experiment.text
    usual = encode.store_path(
        data_dir, dataset=data.dataset, split=data.split, encoder=text.encoder
    )
    return store.open_store(pairs or usual, command=command)


def begin_job(job: EncodeJob) -> JobProgress:
    """Begin or resume a job's store, for other processes to write the shards it lacks.

    Errors: as `EncodeJob.open`; ValueError when the folder holds something else.
    """
    source, encoder, target = job.open()
    if (found := encode.find_finished(target)) is not None:
        return JobProgress(target, [], found)
    empty = encode.encode_empty(encoder, target)  # first: an encoder may compute nonsense
    missing = store.begin_store(target)
    store.write_left_out(target, source.skipped)
    store.write_empty(target, empty)
    encoder.free()  # this process encodes nothing more
    return JobProgress(target, missing)


def write_shard(
    job: EncodeJob, number: int, *, done: Callable[[int], Any], threads: int | None = None
) -> Counts:
    """Write one shard of a job that was begun, unless it is there; its counts.

    Errors: as `open_resources`; ValueError when an image does not fit.
    """
    source, encoder, target = open_resources(job)
    with _ONE_AT_A_TIME:
        if target.shard(number).name in folder_files.list_files(target.folder):
            return Counts()
        (counts,) = encode.write_shards(
            source, encoder, target, [number], done=done, threads=threads
        )
        return counts


def open_resources(job: EncodeJob) -> JobResources:
    """Return the resources of a begun job that this process's threads share.

    Errors: as `EncodeJob.open`; FileNotFoundError where the job's folder is not seen from here;
    ValueError when source or encoder are not those with which it was begun.
    """
    with _ONE_AT_A_TIME:
        return _opened(job)


@functools.lru_cache(maxsize=1)
def _opened(job: EncodeJob) -> JobResources:
    if not {store.HEADER, store.INDEX} & set(folder_files.list_files(job.folder)):
        raise FileNotFoundError(
            f"a worker does not see {job.folder / store.HEADER}: the folder of pairs has to be "
            "one that all workers see, by the same path"
        )
    found = job.open()
    store.begin_store(found.target)
    return found
