"""A source's examples to images at a store's sizes, or the reason why one is skipped."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from imagen_jax.data.images import decode, filters, transforms
from imagen_jax.data.sources import base
from imagen_jax.data.sources.base import Source
from imagen_jax.data.store.skipped import Skipped
from imagen_jax.data.store.store import Store
from imagen_jax.io.errors import CorruptDataError


class PreparedImage(NamedTuple):
    """One example of a source, its captions not yet encoded."""

    key: str
    captions: tuple[str, ...]
    images: dict[int, bytes]


class PreparedShard(NamedTuple):
    """The examples of a shard, in the order of the source."""

    number: int
    images: list[PreparedImage]
    lacks: list[Skipped]


def prepare_image(source: Source, target: Store, index: int) -> PreparedImage | Skipped:
    """An example's images; they depend on the example and the target alone.

    Errors: ValueError where the target has no framing and an image does not fit.
    """
    key = source.key(index)
    if target.framing is None:
        return _fitting(source[index], target, key)
    try:
        example = source[index]
        image = example["image"]
        captions, reason = _kept(target, decode.read_header(image), example["captions"])
        if reason is not None:
            return Skipped(index, key, reason)
        images = transforms.pyramid(image, target.sizes, framing=target.framing, index=index)
    except (CorruptDataError, decode.UnreadableImageError) as error:
        return Skipped(index, key, error.reason, base.make_printable(str(error)))
    return PreparedImage(key, captions, images)


def prepare_shards(
    source: Source, target: Store, numbers: Sequence[int], *, threads: int | None = None
) -> Iterator[PreparedShard]:
    """The examples of shards, made by threads, one per core unless their number is given.

    The next shard's are made while one is encoded.
    """

    def load(index: int) -> PreparedImage | Skipped:
        return prepare_image(source, target, index)

    ranges = target.shards()
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            loading: list[Any] = [pool.map(load, ranges[n]) for n in numbers[:1]]
            for place, number in enumerate(numbers):
                made = list(loading.pop())
                loading = [pool.map(load, ranges[n]) for n in numbers[place + 1 : place + 2]]
                images = [one for one in made if isinstance(one, PreparedImage)]
                yield PreparedShard(
                    number, images, [one for one in made if isinstance(one, Skipped)]
                )
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest need not be loaded


def _fitting(example: dict[str, Any], target: Store, key: str) -> PreparedImage:
    """The image of an example that has to fit."""
    try:
        images = transforms.pyramid(example["image"], target.sizes)
    except ValueError as error:
        raise ValueError(f"{target.dataset} {key}: {error}") from error
    return PreparedImage(key, example["captions"], images)


def _kept(
    target: Store, header: decode.ImageHeader, captions: tuple[str, ...]
) -> tuple[tuple[str, ...], str | None]:
    """Captions that are kept, and why the example is dropped if it is.

    One that would have to be enlarged is, whatever the filters.
    """
    side = max(target.sizes)
    if min(header.width, header.height) < side:
        return (), f"smaller than {side} pixels"
    return filters.apply_filters(target.filters, header, captions)
