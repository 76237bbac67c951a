"""Parts of a source that did not become records of a store: each listed, with the reason.

Every shard has a list of its own until the store is complete, and so has what the source itself
left out; then they become one file.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from imagen_jax.config.decode import decode
from imagen_jax.data.sources.base import SkippedNames
from imagen_jax.data.store import shard_file
from imagen_jax.io import folder_files, json_reader
from imagen_jax.io.workdir import Workdir

FILE = "skipped.jsonl"
OF_SOURCE = "skipped-by-source.jsonl"  # until the store is complete


class Skipped(NamedTuple):
    """An example or a file, as a line of the list has it."""

    example: int | None  # its index in the source; None: the source does not count it
    key: str  # that its record would have had, or the file's name
    reason: str  # the same words for all of a kind
    detail: str = ""  # of this one


class Total(NamedTuple):
    """The number of examples that were skipped for one reason."""

    reason: str
    count: int  # type: ignore[assignment]  # it hides tuple.count


def write_skipped(path: Workdir, lacks: Iterable[Skipped]) -> None:
    """List what a shard lacks; the file appears whole."""
    text = "".join(f"{json.dumps(one._asdict())}\n" for one in lacks)
    with shard_file.name_failures(path):
        folder_files.write(path, text)


def list_left_out(left_out: Mapping[str, SkippedNames]) -> list[Skipped]:
    """Return a line for each name that a source keeps of what it left out, or for their rest."""
    found = []
    for reason, names in left_out.items():
        found += [Skipped(None, name, reason) for name in names]
        if more := names.total - len(names):
            found.append(Skipped(None, "", reason, f"{more:,} more, which are not named"))
    return found


def gather_skipped(
    lists: Sequence[Workdir], folder: Workdir, of_source: Sequence[Workdir] = ()
) -> tuple[list[int], tuple[Total, ...]]:
    """Make one list of all shards'; how many each has, and how many there are of each reason.

    What the source left out comes last, and is not counted: it has no examples there.
    Errors: FileNotFoundError where a shard has none; OSError.
    """
    texts = [folder_files.read_text(one) for one in lists]
    rest = [folder_files.read_text(one) for one in of_source]
    with shard_file.name_failures(folder / FILE):
        folder_files.write(folder / FILE, "".join((*texts, *rest)))
    lines = [text.splitlines() for text in texts]
    found = Counter(_parse(line, folder).reason for line in itertools.chain(*lines))
    lengths = [len(of_shard) for of_shard in lines]
    return lengths, tuple(Total(reason, count) for reason, count in sorted(found.items()))


def read_skipped(folder: Workdir) -> list[Skipped]:
    """Read what a finished store lacks, in the order of its source; files come last."""
    try:
        lines = folder_files.read_text(folder / FILE).splitlines()
    except FileNotFoundError:
        lines = []
    return [_parse(line, folder) for line in lines]


def _parse(line: str, folder: Workdir) -> Skipped:
    """Parse a line of a list. Errors: ValueError that names the list's folder."""
    where = f"a line of {folder / FILE}"
    fields = json_reader.parse_object(line, where=where, remedy="encode the dataset again")
    return decode(Skipped, fields, where)


def summarise_skipped(totals: Iterable[Total]) -> str:
    """Counts with their reasons, the largest first."""
    ordered = sorted(totals, key=lambda total: -total.count)
    return ", ".join(f"{total.count:,} {total.reason}" for total in ordered)
