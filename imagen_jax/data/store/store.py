"""A store: a folder of (image, encoding) records in ArrayRecord files of so many each, its shards.

Shards are written one by one, by any number of processes, under temporary names and renamed when
they are whole; the index comes last. What is there is never written again.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource

from imagen_jax.config import Filters, Framing
from imagen_jax.data.sources.base import SkippedNames
from imagen_jax.data.store import records, shard_file, skipped
from imagen_jax.data.store.records import Encoding, Record, TextDtype
from imagen_jax.data.store.shard_file import ShardFile
from imagen_jax.data.store.skipped import Skipped, Total
from imagen_jax.io.atomic import write_atomic
from imagen_jax.io.errors import CorruptDataError

VERSION = 3
INDEX = "store.json"  # written last: a folder without it is not a store
HEADER = "unfinished.json"  # written first: what the shards of an unfinished store are of
EMPTY = "empty.array_record"  # the encoding of the empty caption
SHARD_RECORDS = 8192
COMMAND = "imagen encode"  # makes a store


@dataclass(frozen=True, kw_only=True)
class Store:
    """A folder of records, and what is in them; `files` is empty until it is written.

    Until then every example of the source counts; with `framing` some may be skipped.
    """

    folder: Path
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
    computed_in: str = "float32"  # the encoder's dtype
    text_dtype: TextDtype = "bfloat16"
    shard_records: int = SHARD_RECORDS  # examples of a shard
    framing: Framing | None = None  # None: images had to be squares of fitting sides
    filters: Filters = Filters()  # ignored without framing
    skipped: tuple[Total, ...] = ()  # by reason, in alphabetical order
    files: tuple[ShardFile, ...] = ()  # the shards in their order, then EMPTY

    def source(self) -> "Records":
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

    def shard(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"records-{self._place(number)}.array_record"

    def skipped_in(self, number: int) -> Path:
        """The file of what a shard lacks; it goes when the store is complete."""
        return self.folder / f"skipped-{self._place(number)}.jsonl"

    def shard_of(self, index: int) -> Path:
        """The file of a record of a finished store."""
        ends = itertools.accumulate(file.count for file in self.files)
        return self.folder / self.files[next(n for n, end in enumerate(ends) if index < end)].name

    def _place(self, number: int) -> str:
        return f"{number:05d}-of-{-(-self.examples // self.shard_records):05d}"


class Records:
    """Random access to a store's records; threads may share it, worker processes may copy it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # With its count in brackets a file is not opened to count its records.
        self._source = ArrayRecordDataSource(
            [
                f"{store.folder / file.name}[0:{file.count}]"
                for file in store.files
                if file.name != EMPTY and file.count
            ],
            reader_options={"max_parallelism": "0"},  # no thread pool for one small record
        )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        """The record at an index.

        Errors: CorruptDataError when its bytes are not those of one that fits.
        """
        try:
            data = self._source[index]
        except RuntimeError as error:
            if not str(error).startswith(shard_file.CORRUPTED):
                raise
            raise CorruptDataError(f"record {index} of {self._store.folder}: {error}") from error
        record = records.unpack_record(data, text_dtype=self._store.text_dtype)
        if misfit := _misfit(self._store, record):
            raise CorruptDataError(misfit)
        return record


def begin_store(target: Store) -> list[int]:
    """Make the folder of a store that is not there, or go on with it; the shards it lacks.

    Errors: ValueError when there are no records to write, or when the folder holds shards of
    something else, naming what differs.
    """
    if not target.count:
        raise ValueError(f"{target.dataset} {target.split} has no images: nothing to write")
    header = target.folder / HEADER
    if header.is_file():
        refuse_other(_read(header, target.folder), target)
    elif stray := sorted(path.name for path in target.folder.glob("records-*")):
        raise ValueError(
            f"{target.folder} has {stray[0]}, but neither {INDEX} nor {HEADER}: it is no "
            "unfinished store; encode into another folder"
        )
    else:
        target.folder.mkdir(parents=True, exist_ok=True)
        _write(header, target)
    return [n for n in range(len(target.shards())) if not target.shard(n).is_file()]


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
    if not (target.folder / EMPTY).is_file():
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

    Errors: ValueError when no example became a record.
    """
    shards = target.shards()
    paths = [*(target.shard(n) for n in range(len(shards))), target.folder / EMPTY]
    if not all(path.is_file() for path in paths):
        return None
    lists = [target.skipped_in(n) for n in range(len(shards)) if target.framing]
    of_source = [path for path in (target.folder / skipped.OF_SOURCE,) if path.is_file()]
    lacking, totals = [0] * len(shards), ()
    try:
        if lists or of_source:
            found, totals = skipped.gather_skipped(lists, target.folder, of_source)
            lacking = found or lacking
    except FileNotFoundError:  # another process completed it, and took them away
        found = open_store(target.folder)
        for late in lists:  # of a shard that this process wrote, too
            late.unlink(missing_ok=True)
        return found
    counts = [*(len(shard) - lacks for shard, lacks in zip(shards, lacking, strict=True)), 1]
    pairs = zip(paths, counts, strict=True)
    store = dataclasses.replace(
        target,
        count=sum(counts) - 1,
        skipped=totals,
        files=tuple(ShardFile(path.name, count, path.stat().st_size) for path, count in pairs),
    )
    if store.count:
        _write(store.folder / INDEX, store)
    left_over = (store.folder / HEADER, *lists, *of_source, *store.folder.glob("*.tmp"))
    for path in left_over if store.count else (*left_over, *paths):
        path.unlink(missing_ok=True)
    if not store.count:
        raise ValueError(
            f"all of {target.dataset} {target.split} was skipped: "
            f"{skipped.summarise_skipped(totals)}; see "
            f"{target.folder / skipped.FILE}, and give other filters or smaller sizes"
        )
    return store


def open_store(folder: Path | str, *, command: str = COMMAND) -> Store:
    """The store in a folder, after checking that all of it is there.

    `command` is the one that makes it, for errors to name.
    Errors: FileNotFoundError when there is none or it was never finished; ValueError when it is of
    another version or damaged. Each names the place and the remedy.
    """
    folder = Path(folder)
    if all(path.name == skipped.FILE for path in folder.glob("*")):
        raise FileNotFoundError(f"no encoded dataset at {folder}: run `{command}` first")
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"{folder} has no {INDEX}, so its encoding was interrupted: run `{command}` again"
        )
    store = _read(folder / INDEX, folder)
    for file in store.files:
        damage = shard_file.describe_damage(folder / file.name, file)
        if damage:
            raise ValueError(_sentence(folder, damage, command))
    return store


def describe_source(folder: Path) -> str:
    """Return the address of what a store, finished or not, is of; "" where there is none.

    Errors: ValueError for an index that cannot be read.
    """
    for name in (INDEX, HEADER):
        if (folder / name).is_file():
            found = _read(folder / name, folder)
            return join_split(found.dataset, found.split)
    return ""


def join_split(dataset: str, split: str) -> str:
    """Return a dataset and its split as one address."""
    return dataset if split == "train" else f"{dataset}?split={split}"


def refuse_other(found: Store, wanted: Store) -> None:
    """Errors: ValueError naming every field in which a store there is not the one wanted."""
    if found.files:  # a finished one may have more sizes, in shards of another length
        more = found.sizes if set(wanted.sizes) <= set(found.sizes) else wanted.sizes
        wanted = dataclasses.replace(wanted, sizes=more, shard_records=found.shard_records)
        found = dataclasses.replace(found, count=found.examples, skipped=())
    differing = [
        f"{f.name} {getattr(found, f.name)!r} there, {getattr(wanted, f.name)!r} wanted"
        for f in dataclasses.fields(Store)
        if f.name not in ("folder", "files") and getattr(found, f.name) != getattr(wanted, f.name)
    ]
    if differing:
        raise ValueError(
            f"{found.folder} holds another encoding: {'; '.join(differing)}; "
            "delete it or encode into another folder"
        )


def _packed(target: Store, shard: Iterable[Record]) -> Iterator[bytes]:
    for record in shard:
        if misfit := _misfit(target, record):
            raise ValueError(misfit)
        yield records.pack_record(record)


def _misfit(target: Store, record: Record) -> str:
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


def _write(path: Path, store: Store) -> None:
    """All that is known of a store, in a file that appears whole."""
    fields = {f.name: getattr(store, f.name) for f in dataclasses.fields(store)}
    fields |= {name: [part._asdict() for part in fields[name]] for name in ("files", "skipped")}
    fields["filters"] = dataclasses.asdict(store.filters)
    fields["framing"] = store.framing and dataclasses.asdict(store.framing)
    del fields["folder"]  # a store may be moved
    text = json.dumps({"version": VERSION, **fields}, indent=2) + "\n"
    with shard_file.name_failures(path):
        write_atomic(path, text)


def _read(path: Path, folder: Path) -> Store:
    try:
        fields = json.loads(path.read_text())
        version = fields.pop("version")
        if version != VERSION:
            damage = f"{path.name} has format {version}, and this program reads format {VERSION}"
            raise ValueError(_sentence(folder, damage))
        store = Store(folder=folder, **fields | _parsed(fields))
        found = sum(file.count for file in store.files if file.name != EMPTY)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(_sentence(folder, f"{path.name} cannot be read ({error})")) from error
    if path.name == INDEX and (found != store.count or not found):
        damage = f"{path.name} promises {store.count} records, but its files {found}"
        raise ValueError(_sentence(folder, damage))
    return store


def _parsed(fields: dict) -> dict:
    """Parse the fields that are more than JSON has; older stores lack those of framing."""
    framing = fields.get("framing")
    return {
        "sizes": tuple(fields["sizes"]),
        "files": tuple(ShardFile(**file) for file in fields["files"]),
        "skipped": tuple(Total(**total) for total in fields.get("skipped", ())),
        "framing": framing and Framing(**framing),
        "filters": Filters(**fields.get("filters", {})),
    }


def _sentence(folder: Path, damage: str, command: str = COMMAND) -> str:
    return f"the encoded dataset in {folder} is damaged: {damage}; delete it, then `{command}`"
