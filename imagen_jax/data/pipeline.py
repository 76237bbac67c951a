"""A store's records to batches through Grain; the position in them is (seed, step), nothing else.

Worker processes import this module: it imports no jax, which only the main process needs.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from imagen_jax import config
from imagen_jax.data.images import transforms
from imagen_jax.data.store.fit import nonfinite_encoding
from imagen_jax.data.store.records import Encoding, Record
from imagen_jax.data.store.store import Records, Store
from imagen_jax.io.errors import CorruptDataError

TRIED_SHARDS = 2  # where so many shards' worth of records in a row are damaged, none stands in


class Batch(NamedTuple):
    """The data of one step; numpy arrays, or device arrays after `to_device`."""

    pixels: UInt8[np.ndarray, "b h w 3"]
    low_pixels: UInt8[np.ndarray, "b low_h low_w 3"] | None  # super-resolution stages only
    text: Float32[np.ndarray, "b n d"]  # zero beyond each caption's tokens
    text_mask: Bool[np.ndarray, "b n"]
    index: Int32[np.ndarray, " b"]  # type: ignore[assignment]  # of the record; hides tuple.index


class LoadedBatch(NamedTuple):
    """A batch, and what should have been in it."""

    batch: Batch
    lost: Int32[np.ndarray, " k"]  # damaged records, in whose rows others stand in


class LoadedExample(NamedTuple):
    """A row of a batch, its text not yet padded."""

    pixels: UInt8[np.ndarray, "h w 3"]
    low_pixels: UInt8[np.ndarray, "low_h low_w 3"] | None
    text: Float[np.ndarray, "n d"]
    index: int  # type: ignore[assignment]  # it hides tuple.index
    lost: int | None  # the damaged record whose row this is


@dataclass(frozen=True)
class LoadExample:
    """A record's index to what a stage trains on; decodes only the side that it needs.

    Of several captions one is drawn at every visit.
    The next record that is whole stands in for a damaged one, under the same random generator.
    """

    store: Store
    records: Records
    stage: config.Stage

    def __call__(self, wanted: int, rng: np.random.Generator) -> LoadedExample:
        index, record, pixels = self._whole(wanted)
        low_pixels, lost = None, None if index == wanted else wanted
        if self.stage.is_super_resolution:
            low_pixels, pixels = transforms.low_high(
                pixels, rng, factor=self.stage.factor, crop=self.stage.crop
            )
        # Drawn last: more captions change no crop.
        count = len(record.texts)
        text = record.texts[rng.integers(count) if count > 1 else 0]
        if isinstance(self.stage.model, config.DeepFloydUNet):
            # Its null caption is the encoding of the empty one, which the network does not know.
            dropped = rng.random() < self.stage.text_drop_rate
            text = _empty(self.store) if dropped else text
        if not text.is_finite():
            raise nonfinite_encoding(self.store, f"record {index}, {record.key!r},")
        return LoadedExample(pixels, low_pixels, text.array(), index, lost)

    def _whole(self, wanted: int) -> tuple[int, Record, transforms.RGB]:
        """The first record from `wanted` on that can be read, round the store."""
        count = self.store.count
        tries = min(count, TRIED_SHARDS * self.store.shard_records)
        for index in (i % count for i in range(wanted, wanted + tries)):
            with contextlib.suppress(CorruptDataError):
                record = self.records[index]
                return index, record, self._pixels(record)
        raise ValueError(
            f"{self.store.folder}: record {wanted} and the {tries - 1} after it are damaged; "
            "delete the folder, then `imagen encode`"
        )

    def _pixels(self, record: Record) -> transforms.RGB:
        side = self.stage.size
        try:
            return transforms.decode_image(record.images[side], side=side)
        except ValueError as error:
            raise CorruptDataError(f"record {record.key}: {error}") from error


@functools.lru_cache(maxsize=2)
def _empty(store: Store) -> Encoding:
    return store.empty()


@dataclass(frozen=True)
class ProcessRows:
    """The rows of every global batch that one process holds, in ascending order."""

    batch_size: int  # of the global batch
    rows: tuple[int, ...]

    @classmethod
    def whole(cls, batch_size: int) -> "ProcessRows":
        """Return all rows, of the only process."""
        return cls(batch_size, tuple(range(batch_size)))


@dataclass(frozen=True)
class FetchBatch:
    """Fetches the records of a batch together, where they are in a bucket."""

    order: grain.MapDataset  # their indices, as `order_records` has them
    records: Records

    def __call__(self, places: Iterable[int]) -> None:
        self.records.prefetch(int(self.order[place]) for place in places)


@dataclass(frozen=True)
class GlobalOrder:
    """The examples of a share, batch after batch, by their place in the run's global order."""

    ordered: grain.MapDataset
    share: ProcessRows
    start_step: int
    fetch: FetchBatch | None = None

    def __len__(self) -> int:
        return sys.maxsize // self.share.batch_size * len(self.share.rows)

    def __getitem__(self, place: int) -> LoadedExample:
        rows = len(self.share.rows)
        if self.fetch is not None and place % rows == 0:
            self.fetch(map(self._in_order, range(place, place + rows)))
        return self.ordered[self._in_order(place)]

    def _in_order(self, place: int) -> int:
        step, row = divmod(place, len(self.share.rows))
        return (self.start_step + step) * self.share.batch_size + self.share.rows[row]


def example_stream(
    store: Store,
    *,
    stage: config.Stage,
    data: config.Data,
    share: ProcessRows,
    seed: int,
    start_step: int = 0,
) -> grain.DatasetIterator[LoadedBatch]:
    """This process's share of every global batch from `start_step` on, endlessly.

    To be closed at the end, where `data.workers` are processes.
    Errors: ValueError, while iterating, when no whole record follows a damaged one for long, or
    for an encoding that is not finite.
    """
    records = store.source()
    dataset = load_batches(
        load_examples(store, stage=stage, seed=seed, records=records),
        max_length=store.max_length,
        share=share,
        start_step=start_step,
        fetch=FetchBatch(order_records(store, seed), records) if records.is_remote else None,
    )
    ahead = -(-data.prefetch // max(data.workers, 1))
    options = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=ahead)
    loader = dataset.to_iter_dataset(options)
    if data.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which nobody else here parses
        loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=data.workers))
    return iter(loader)


def order_records(store: Store, seed: int) -> grain.MapDataset:
    """Return the indices of records in the run's global order: each epoch shuffled, endlessly."""
    return grain.MapDataset.range(store.count).seed(seed).shuffle().repeat()


def load_examples(
    store: Store, *, stage: config.Stage, seed: int, records: Records | None = None
) -> grain.MapDataset:
    """All examples in the run's global order: each epoch shuffled and cropped again, endlessly.

    An example depends on its place in this order alone, since random_map counts before any slice.
    """
    prepare = LoadExample(store, records or store.source(), stage)
    return order_records(store, seed).random_map(prepare)


def load_batches(
    ordered: grain.MapDataset,
    *,
    max_length: int,
    share: ProcessRows,
    start_step: int = 0,
    fetch: FetchBatch | None = None,
) -> grain.MapDataset:
    """Load one process's batches of the global order, the first of them at `start_step`."""
    return grain.MapDataset.source(GlobalOrder(ordered, share, start_step, fetch)).batch(
        len(share.rows), drop_remainder=True, batch_fn=partial(collate, max_length=max_length)
    )


def collate(rows: Sequence[LoadedExample], *, max_length: int) -> LoadedBatch:
    """Stack examples, padding their text with zeros to `max_length`."""
    width = rows[0].text.shape[-1]
    text = np.zeros((len(rows), max_length, width), np.float32)
    text_mask = np.zeros((len(rows), max_length), bool)
    for number, row in enumerate(rows):
        text[number, : len(row.text)] = row.text
        text_mask[number, : len(row.text)] = True
    low = None
    if rows[0].low_pixels is not None:
        low = np.stack([row.low_pixels for row in rows])  # type: ignore[misc]  # all have them
    pixels = np.stack([row.pixels for row in rows])
    index = np.array([row.index for row in rows], np.int32)
    lost = np.array([row.lost for row in rows if row.lost is not None], np.int32)
    return LoadedBatch(Batch(pixels, low, text, text_mask, index), lost)


def to_device(batch: Batch, shardings: Batch, *, share: ProcessRows) -> Batch:
    """The global batch on the devices, of which this process holds its share.

    Shapes: `shardings` has a jax Sharding in the place of each array.
    """
    import jax  # only here: workers never call this

    def place(local: np.ndarray, sharding: Any) -> Any:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # that is for arrays without a shape
            first, end, _ = index[0].indices(share.batch_size)
            row = bisect.bisect_left(share.rows, first)
            return local[(slice(row, row + end - first), *index[1:])]

        return jax.make_array_from_callback((share.batch_size, *local.shape[1:]), sharding, part)

    return jax.tree.map(place, batch, shardings)
