"""Damaged records that a run met in its store: counted by shard, listed, and limited."""

from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imagen_jax.data.pipeline import LoadedBatch
from imagen_jax.data.store.store import Store
from imagen_jax.io import log_files
from imagen_jax.io.errors import CorruptDataError

FILE = "damaged_records.jsonl"  # process n, from 1 on, has damaged_records.n.jsonl
ENOUGH = 1000  # records; a share is of so many, or of the whole store, even while fewer were seen


class CorruptRecordCounter:
    """The damaged records among those of one process; a file in `folder` lists each once.

    A line has the step that first missed the record, its index, key and shard. The key is null
    when the record itself cannot be read; otherwise its image is what is damaged.
    `damaged` counts since the run began, `by_shard` and the share since this process began.
    """

    def __init__(self, store: Store, folder: Path, *, most: float, process: int = 0) -> None:
        self._store, self._records, self._most = store, store.source(), most
        self._file = folder / (f"damaged_records.{process}.jsonl" if process else FILE)
        self._log = log_files.JsonLines(self._file)
        self._listed = {entry["record"] for entry in log_files.read_entries(self._file, "record")}
        self._lost: set[int] = set()  # since the process began, as is by_shard
        self.by_shard: Counter[str] = Counter()
        self._seen = np.zeros(store.count, bool)
        self._distinct = 0

    @property
    def damaged(self) -> int:
        """The number of records that were lost since the run began."""
        return len(self._listed)

    def add(self, step: int, loaded: LoadedBatch) -> None:
        """Count what a step lost.

        Errors: ValueError when too large a share of the records is damaged.
        """
        self._see(loaded.batch.index)
        self._see(loaded.lost)
        for index in np.unique(loaded.lost).tolist():
            if index not in self._lost:
                self._lose(step, index)
        self._refuse_too_many()

    def _see(self, indices: np.ndarray) -> None:
        distinct = np.unique(indices)
        self._distinct += int(np.count_nonzero(~self._seen[distinct]))
        self._seen[distinct] = True

    def _lose(self, step: int, index: int) -> None:
        shard = self._store.shard_of(index).name
        if shard not in self.by_shard:
            tqdm.write(
                f"{shard}: record {index} is damaged, and another stands in for it; "
                f"all such are listed in {self._file}"
            )
        self._lost.add(index)
        self.by_shard[shard] += 1
        if index not in self._listed:
            self._listed.add(index)
            entry = {"step": step, "record": index, "key": self._key(index), "shard": shard}
            self._log.add(entry)

    def _key(self, index: int) -> str | None:
        try:
            return self._records[index].key
        except CorruptDataError:
            return None

    def _refuse_too_many(self) -> None:
        lost, of = len(self._lost), max(self._distinct, min(ENOUGH, self._store.count))
        if lost > self._most * of:
            worst, count = self.by_shard.most_common(1)[0]
            raise ValueError(
                f"{lost} of {self._distinct} records read from {self._store.folder} are damaged "
                f"({count} in {worst}), more than data.max_damaged={self._most} allows: see "
                f"{self._file}; delete the folder of records, then `imagen encode`"
            )
