"""The ArrayRecord files of a store: each appears whole, and damage is described."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from imagen_jax.data.store import plain_shards
from imagen_jax.io import folder_files
from imagen_jax.io.bucket_errors import BucketError
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.workdir import Workdir

# One record per chunk for random access; PNG bytes do not compress further.
WRITER_OPTIONS = "group_size:1,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # no thread pool for one small record
# How ArrayRecord's RuntimeErrors about bytes begin; those about opening and reading do not.
CORRUPTED = ("Corrupted Riegeli", "Invalid Riegeli")


class ShardFile(NamedTuple):
    """The name and size that a file should have."""

    name: str
    count: int  # type: ignore[assignment]  # records; it hides tuple.count
    bytes: int


def write(path: Workdir, data: Iterable[bytes], *, count: int) -> None:
    """Write a file of `count` records, whole or not at all.

    Errors: ValueError when there are more or fewer; FileExistsError for a file of other bytes;
    OSError, as where the disk is full; what `data` raises.
    """

    def fill(target: Path) -> None:
        written = _fill(target, data)
        if written != count:
            raise ValueError(f"{path}: {written} records for a shard of {count}")

    folder_files.create(path, fill)


def _fill(path: Path, data: Iterable[bytes]) -> int:
    """Write records; their number. Errors: OSError that names the file; what `data` raises."""
    written = 0
    with name_failures(path):
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    try:
        for record in data:
            with name_failures(path):
                writer.write(record)
            written += 1
    except BaseException:
        with contextlib.suppress(RuntimeError):  # the first reason counts
            writer.close()
        raise
    with name_failures(path):
        writer.close()
    return written


@contextlib.contextmanager
def name_failures(path: Workdir) -> Iterator[None]:
    """Turn a failure to write into one sentence. Errors: OSError."""
    try:
        yield
    except (BucketError, FileExistsError):  # name it themselves
        raise
    except (OSError, RuntimeError) as error:  # ArrayRecord's own are RuntimeErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"{path.parent}: {path.name} was not written ({reason}): make room or check the rights "
            "there, then give the same command again, which resumes"
        ) from error


def read_first(path: Workdir) -> bytes:
    """A small file's first record. Errors: OSError; CorruptDataError for a damaged file."""
    with folder_files.local_copy(path) as copy:
        try:
            plain_shards.check_first(copy)
            reader = ArrayRecordReader(str(copy), READER_OPTIONS)
            found = reader.read([0]) if reader.num_records() else []
            if reader.ok():  # else closing it raises as well
                reader.close()
        except (RuntimeError, CorruptDataError) as error:
            reason = (str(error).strip().splitlines() or ["unreadable"])[0]
            raise CorruptDataError(f"{path} is damaged ({reason}): encode again") from error
    if not found:
        raise CorruptDataError(f"{path} is damaged: it holds no record; encode again")
    return found[0]


def describe_damage(path: Workdir, file: ShardFile, *, size: int | None) -> str:
    """Describe the damage of a file of `size` bytes, None for one that is missing; "" for none.

    Records are counted on this machine alone: in a bucket readers do that.
    """
    if size is None:
        return f"{file.name} is missing"
    if size != file.bytes:
        what = "was cut short" if size < file.bytes else "has grown"
        return f"{file.name} {what}: {size} bytes instead of {file.bytes}"
    count = _count(path) if isinstance(path, Path) else file.count
    return "" if count == file.count else f"{file.name} has {count} records, not {file.count}"


def _count(path: Path) -> int:
    reader = ArrayRecordReader(str(path), READER_OPTIONS)
    try:
        return reader.num_records()
    finally:
        # Closing a reader of a file that is no ArrayRecord raises; its zero count says it already.
        if reader.ok():
            reader.close()
