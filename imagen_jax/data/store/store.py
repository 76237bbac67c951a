"""A store: a folder of (image, encoding) records in ArrayRecord files of so many each, its shards.

The folder is on this machine or in a bucket (`gs://`). Shards are written one by one, by any number
of processes, and each appears whole; the index comes last. What is there is never written again.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from imagen_jax.config import Filters, Framing, Padding
from imagen_jax.data.sources.base import SkippedNames
from imagen_jax.data.store import index, records, shard_file, skipped
from imagen_jax.data.store.block_cache import CacheSettings
from imagen_jax.data.store.index import COMMAND, EMPTY, HEADER, INDEX, refuse_other
from imagen_jax.data.store.reader import Records, describe_misfit
from imagen_jax.data.store.records import Encoding, Record, TextDtype
from imagen_jax.data.store.shard_file import ShardFile
from imagen_jax.data.store.skipped import Skipped, Total
from imagen_jax.io import folder_files, workdir
from imagen_jax.io.workdir import Workdir

SHARD_RECORDS = 8192


@dataclass(frozen=True, kw_only=True)
class Store:
    """A folder of records, and what is in them; `files` is empty until it is written.

    Until then every example of the source counts; with `framing` some may be skipped.
    """

    folder: Workdir
    dataset: str
    split: str
    count: int  # records
    sizes: tuple[int, ...]  # sides of each record's images
    encoder: str  # its name; `identity` digests its weights and tokenizer
    identity: str
    vocabulary: str  # digest of the tokenizer
    width: int  # of one token's encoding
    max_length: int  # tokens, end of sentence included
    clean: bool = False  # whether captions were cleaned
    clean_caption: bool = False  # by DeepFloyd IF's cleaner
    lower_case: bool = False  # whether they were made lower case
    padding: Padding = "left_out"  # rows behind a caption's end
    computed_in: str = "float32"  # the encoder's dtype
    text_dtype: TextDtype = "bfloat16"
    shard_records: int = SHARD_RECORDS  # examples of a shard
    framing: Framing | None = None  # None: images had to be squares of fitting sides
    filters: Filters = Filters()  # ignored without framing
    skipped: tuple[Total, ...] = ()  # by reason, in alphabetical order
    files: tuple[ShardFile, ...] = ()  # the shards in their order, then EMPTY
    cache: CacheSettings = CacheSettings()  # of a store in a bucket; not part of the index

    def source(self) -> Records:
        """The records by index, in the order of the dataset."""
        return Records(self)

    def empty(self) -> Encoding:
        """The encoding of the empty caption, (1, width): its end of sentence."""
        data = shard_file.read_first(self.folder / EMPTY)
        return records.unpack_record(data, text_dtype=self.text_dtype).texts[0]

    @property
    def examples(self) -> int:
        """The number of examples that the source has."""
        return self.count + sum(total.count for total in self.skipped)

    def shards(self) -> list[range]:
        """The source's examples of each shard."""
        return [
            range(self.examples)[start : start + self.shard_records]
            for start in range(0, self.examples, self.shard_records)
        ]

    def shard(self, number: int) -> Workdir:
        """The file of a shard."""
        return self.folder / f"records-{self._place(number)}.array_record"

    def skipped_in(self, number: int) -> Workdir:
        """The file of what a shard lacks; it goes when the store is complete."""
        return self.folder / f"skipped-{self._place(number)}.jsonl"

    def shard_of(self, index: int) -> Workdir:
        """The file of a record of a finished store."""
        ends = itertools.accumulate(file.count for file in self.files)
        return self.folder / self.files[next(n for n, end in enumerate(ends) if index < end)].name

    def _place(self, number: int) -> str:
        return f"{number:05d}-of-{-(-self.examples // self.shard_records):05d}"


def begin_store(target: Store) -> list[int]:
    """Make the folder of a store that is not there, or go on with it; the shards it lacks.

    Of two that begin at once in one folder one makes the header, and the other is held against it.
    Errors: ValueError when there are no records to write, or when the folder holds shards of
    something else, naming what differs; OSError.
    """
    if not target.count:
        raise ValueError(f"{target.dataset} {target.split} has no images: nothing to write")
    files = folder_files.list_files(target.folder)
    if INDEX in files:  # another process finished it
        refuse_other(_read(target.folder / INDEX), target)
        return []
    if HEADER not in files:
        if stray := sorted(name for name in files if name.startswith("records-")):
            if {INDEX, HEADER} & set(folder_files.list_files(target.folder)):  # by now
                return begin_store(target)
            raise ValueError(
                f"{target.folder} has {stray[0]}, but neither {INDEX} nor {HEADER}: it is no "
                "unfinished store; encode into another folder"
            )
        _create_header(target)
    try:
        refuse_other(_read(target.folder / HEADER), target)
    except FileNotFoundError:  # another process finished it
        return begin_store(target)
    return [n for n in range(len(target.shards())) if target.shard(n).name not in files]


def _create_header(target: Store) -> None:
    """Write the header, unless another process was faster."""
    folder_files.make_folder(target.folder)
    try:
        _create(target.folder / HEADER, target)
    except FileExistsError:
        return


def write_shard(
    target: Store, number: int, shard: Iterable[Record], *, lacks: Sequence[Skipped] = ()
) -> None:
    """Write one shard, and what of its examples it lacks; it appears whole or not at all.

    Errors: ValueError when a record does not fit the store, or their number is not the shard's.
    """
    if target.framing is not None:
        skipped.write_skipped(target.skipped_in(number), lacks)
    wanted = len(target.shards()[number]) - len(lacks)
    shard_file.write(target.shard(number), _packed(target, shard), count=wanted)


def write_empty(target: Store, text: Encoding) -> None:
    """Write the encoding of the empty caption, unless it is there."""
    if EMPTY not in folder_files.list_files(target.folder):
        record = Record(key="empty", captions=("",), images={}, texts=(text,))
        sizeless = dataclasses.replace(target, sizes=())
        shard_file.write(target.folder / EMPTY, _packed(sizeless, [record]), count=1)


def write_left_out(target: Store, left_out: Mapping[str, SkippedNames]) -> None:
    """List what the source itself left out, for `finish_store` to add to the examples skipped."""
    if left_out:
        lines = skipped.list_left_out(left_out)
        skipped.write_skipped(target.folder / skipped.OF_SOURCE, lines)


def finish_store(target: Store) -> Store | None:
    """Write the index once all shards are there, of any process; None as long as some lack.

    Errors: ValueError when no example became a record; OSError.
    """
    shards = target.shards()
    files = folder_files.list_files(target.folder)
    if INDEX in files:
        return _finished_by_another(target)
    names = [*(target.shard(n).name for n in range(len(shards))), EMPTY]
    if not set(names) <= set(files):
        return None
    lists = [target.skipped_in(n) for n in range(len(shards)) if target.framing]
    of_source = [target.folder / name for name in (skipped.OF_SOURCE,) if name in files]
    lacking = [0] * len(shards)
    totals: tuple[Total, ...] = ()
    try:
        if lists or of_source:
            found, totals = skipped.gather_skipped(lists, target.folder, of_source)
            lacking = found or lacking
    except FileNotFoundError:  # another process completed it, and took them away
        return _finished_by_another(target)
    counts = [*(len(shard) - lacks for shard, lacks in zip(shards, lacking, strict=True)), 1]
    pairs = zip(names, counts, strict=True)
    store = dataclasses.replace(
        target,
        count=sum(counts) - 1,
        skipped=totals,
        files=tuple(ShardFile(name, count, files[name]) for name, count in pairs),
    )
    if store.count:
        _create(store.folder / INDEX, store)
    _clear(target, () if store.count else names)
    if not store.count:
        raise ValueError(
            f"all of {target.dataset} {target.split} was skipped: "
            f"{skipped.summarise_skipped(totals)}; see "
            f"{target.folder / skipped.FILE}, and give other filters or smaller sizes"
        )
    return store


def _finished_by_another(target: Store) -> Store:
    """Open the store; what this process wrote of it later goes."""
    found = open_store(target.folder)
    _clear(target)
    return found


def _clear(target: Store, more: Iterable[str] = ()) -> None:
    """Delete what only an unfinished store has, and `more`."""
    unfinished = {HEADER, skipped.OF_SOURCE, *more}
    unfinished |= {target.skipped_in(n).name for n in range(len(target.shards()))}
    for name in folder_files.list_files(target.folder):
        if name in unfinished or name.endswith(".tmp"):
            folder_files.delete(target.folder / name)


def open_store(folder: Workdir | str, *, command: str = COMMAND) -> Store:
    """The store in a folder, after checking that all of it is there.

    `command` is the one that makes it, for errors to name.
    Errors: FileNotFoundError when there is none or it was never finished; ValueError when it is of
    another version or damaged; OSError of a bucket. Each names the place and the remedy.
    """
    folder = workdir.as_path(folder)
    files = folder_files.list_files(folder)
    if set(files) <= {skipped.FILE}:
        raise FileNotFoundError(f"no encoded dataset at {folder}: run `{command}` first")
    if INDEX not in files:
        if not any(name == HEADER or name.startswith("records-") for name in files):
            raise FileNotFoundError(
                f"{folder} holds no encoded dataset, but {min(files)}: give the folder that "
                f"`{COMMAND} --out` wrote, another one than that of the images"
            )
        raise FileNotFoundError(
            f"{folder} has no {INDEX}, so its encoding was interrupted: run `{command}` again"
        )
    store = _read(folder / INDEX)
    for file in store.files:
        damage = shard_file.describe_damage(folder / file.name, file, size=files.get(file.name))
        if damage:
            raise ValueError(index.describe_damage(folder, damage, command))
    return store


def describe_source(folder: Workdir) -> str:
    """Return the address of what a store, finished or not, is of; "" where there is none.

    Errors: ValueError for an index that cannot be read; OSError.
    """
    files = folder_files.list_files(folder)
    for name in (INDEX, HEADER):
        if name in files:
            found = _read(folder / name)
            return join_split(found.dataset, found.split)
    return ""


def join_split(dataset: str, split: str) -> str:
    """Return a dataset and its split as one address."""
    return dataset if split == "train" else f"{dataset}?split={split}"


def _packed(target: Store, shard: Iterable[Record]) -> Iterator[bytes]:
    for record in shard:
        if misfit := describe_misfit(target, record):
            raise ValueError(misfit)
        yield records.pack_record(record)


def _create(file: Workdir, store: Store) -> None:
    with shard_file.name_failures(file):
        folder_files.create(file, index.to_text(store))


def _read(file: Workdir) -> Store:
    return Store(folder=file.parent, **index.parse(folder_files.read_text(file), file))
