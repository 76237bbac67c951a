"""Examples of a source that did not become records of a store: each listed, with the reason.

Every shard has a list of its own until the store is complete; then they become one file.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from imagen_jax.data.store import shard_file
from imagen_jax.io.atomic import write_atomic

FILE = "skipped.jsonl"


class Skipped(NamedTuple):
    """An example, as a line of the file has it."""

    example: int  # its index in the source
    key: str  # that its record would have had
    reason: str  # the same words for all of a kind
    detail: str = ""  # of this one


class Total(NamedTuple):
    """The number of examples that were skipped for one reason."""

    reason: str
    count: int


def write_skipped(path: Path, lacks: Iterable[Skipped]) -> None:
    """List what a shard lacks; the file appears whole."""
    text = "".join(f"{json.dumps(one._asdict())}\n" for one in lacks)
    with shard_file.name_failures(path):
        write_atomic(path, text)


def gather_skipped(lists: Sequence[Path], folder: Path) -> tuple[list[int], tuple[Total, ...]]:
    """Make one list of all shards'; how many each has, and how many there are of each reason.

    Errors: FileNotFoundError where a shard has none.
    """
    lengths: list[int] = []
    found = Counter[str]()

    def join(target: Path) -> None:
        with target.open("w") as file:
            for one in lists:
                lines = one.read_text().splitlines(keepends=True)
                with shard_file.name_failures(folder / FILE):
                    file.writelines(lines)
                    file.flush()
                lengths.append(len(lines))
                found.update(json.loads(line)["reason"] for line in lines)

    write_atomic(folder / FILE, join)
    return lengths, tuple(Total(reason, count) for reason, count in sorted(found.items()))


def read_skipped(folder: Path) -> list[Skipped]:
    """Read the examples that a finished store lacks, in the order of its source."""
    file = folder / FILE
    lines = file.read_text().splitlines() if file.is_file() else []
    return [Skipped(**json.loads(line)) for line in lines]


def summarise_skipped(totals: Iterable[Total]) -> str:
    """Counts with their reasons, the largest first."""
    ordered = sorted(totals, key=lambda total: -total.count)
    return ", ".join(f"{total.count:,} {total.reason}" for total in ordered)
