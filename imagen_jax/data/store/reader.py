"""A store's records by index, from files of this machine or of a bucket."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from array_record.python.array_record_data_source import ArrayRecordDataSource

from imagen_jax.data.store import bucket_records, records, shard_file
from imagen_jax.data.store.bucket_records import BucketRecords
from imagen_jax.data.store.index import EMPTY
from imagen_jax.data.store.plain_shards import PlainShards
from imagen_jax.data.store.records import Record
from imagen_jax.io import buckets
from imagen_jax.io.errors import CorruptDataError

if TYPE_CHECKING:
    from imagen_jax.data.store.store import Store


class Records:
    """Random access to a store's records; threads may share it, worker processes may copy it."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        shards = [file for file in store.files if file.name != EMPTY and file.count]
        self._plain = (
            None
            if buckets.is_bucket(store.folder)
            else PlainShards(
                [Path(store.folder) / file.name for file in shards], [file.count for file in shards]
            )
        )
        self._source = (
            bucket_records.open_records(str(store.folder), shards, store.cache)
            if buckets.is_bucket(store.folder)
            # With its count in brackets a file is not opened to count its records.
            else ArrayRecordDataSource(
                [f"{store.folder / file.name}[0:{file.count}]" for file in shards],
                reader_options={"max_parallelism": "0"},  # no thread pool for one small record
            )
        )

    def __len__(self) -> int:
        return len(self._source)

    @property
    def is_remote(self) -> bool:
        """Whether the records are in a bucket."""
        return isinstance(self._source, BucketRecords)

    def describe(self) -> str:
        """Say how records are read; "" for those in a folder of this machine."""
        return self._source.describe() if isinstance(self._source, BucketRecords) else ""

    def prefetch(self, indices: Iterable[int]) -> None:
        """Begin to fetch records that are read next, from a bucket."""
        if isinstance(self._source, BucketRecords):
            self._source.prefetch(indices)

    def __getitem__(self, index: int) -> Record:
        """The record at an index.

        Errors: CorruptDataError when its bytes are not those of one that fits.
        """
        try:
            if self._plain is not None and 0 <= index < len(self):
                self._plain.check(index)
            data = self._source[index]
        except RuntimeError as error:
            if not str(error).startswith(shard_file.CORRUPTED):
                raise
            raise CorruptDataError(f"record {index} of {self._store.folder}: {error}") from error
        record = records.unpack_record(data, text_dtype=self._store.text_dtype)
        if misfit := describe_misfit(self._store, record):
            raise CorruptDataError(misfit)
        return record


def describe_misfit(target: "Store", record: Record) -> str:
    """Give the reason why a record does not belong in a store; "" if it does."""
    sizes = tuple(sorted(record.images))
    wanted = (tuple(sorted(target.sizes)), target.width, target.text_dtype)
    tokens = max(len(text.values) for text in record.texts)
    kinds = {(sizes, text.values.shape[1], text.values.dtype.name) for text in record.texts}
    found = next(iter(kinds - {wanted}), wanted)
    if found == wanted and tokens <= target.max_length:
        return ""
    return (
        f"record {record.key} has (sizes, text width, dtype) = {found} and {tokens} tokens; "
        f"{target.folder} takes {wanted} and at most {target.max_length} tokens"
    )
