"""What a source holds, before anything is made of it: sizes, lengths, damage, duplicates.

Headers and ends of pictures are read, and captions; pictures are decoded on request, and where
their end is not at the end of their bytes.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from imagen_jax.config import Filters
from imagen_jax.data import worker_pool
from imagen_jax.data.images import decode, filters
from imagen_jax.data.sources.base import SkipLog, SkippedNames, Source
from imagen_jax.io.errors import CorruptDataError

CHUNK = 2048  # examples that a process is given at once
# What files end with, but for zeros behind it.
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b"\0;"}
LENGTHS = {"WEBP": (4, 8), "BMP": (2, 0)}  # where files say how long they are, less how much
DIGEST = 8  # bytes: of a million pictures two collide once in 40 million times
SAME_PICTURE, SAME_PAIR = "picture again", "picture and caption again"

Lengths = Callable[[Sequence[str]], Sequence[int]]  # tokens of captions


class ExampleStats(NamedTuple):
    """An example that can be read."""

    index: int
    width: int
    height: int
    tokens: int  # of its longest caption
    captions: int
    bytes: int
    picture: bytes  # digests
    pair: bytes


@dataclass
class PartialReport:
    """Some examples of a source, checked."""

    ones: list[ExampleStats] = field(default_factory=list)
    left_out: list[tuple[str, int, str]] = field(default_factory=list)  # reason, index, why


@dataclass(frozen=True)
class ExampleInspector:
    """How examples are looked at; processes get a copy."""

    source: Source
    filters: Filters
    lengths: Lengths
    decodes: bool = False

    def __call__(self, indices: Sequence[int]) -> PartialReport:
        """Errors: those of the source, but for examples that are damaged."""
        part, captions = PartialReport(), []
        for index in indices:
            try:
                example = self.source[index]
                image = example["image"]
                header = decode.read_header(image)
                if self.decodes or not _ended(image, header.format):
                    _check_whole(image, header.format)
            except (CorruptDataError, decode.UnreadableImageError) as error:
                part.left_out.append((error.reason, index, str(error)))
                continue
            texts = example["captions"]
            _, reason = filters.apply_filters(self.filters, header, texts)
            if reason is not None:
                part.left_out.append((reason, index, ""))
            captions.append(texts)
            picture = _digest(image)
            pair = _digest(picture + "\n".join(texts).encode())
            part.ones.append(
                ExampleStats(
                    index, header.width, header.height, 0, len(texts), len(image), picture, pair
                )
            )
        tokens = iter(self.lengths([text for texts in captions for text in texts]))
        most = [max(next(tokens) for _ in texts) for texts in captions]
        part.ones = [one._replace(tokens=n) for one, n in zip(part.ones, most, strict=True)]
        return part


@dataclass(frozen=True)
class DatasetReport:
    """A source, looked at; arrays have one number for each example that can be read."""

    examples: int  # of the source
    looked_at: int
    width: np.ndarray
    height: np.ndarray
    tokens: np.ndarray
    captions: np.ndarray
    bytes: np.ndarray
    left_out: dict[
        str, SkippedNames
    ]  # what the source, its pictures or a filter lose: keys by reason
    again: dict[str, SkippedNames]  # examples that were there before


def inspect_source(
    look: ExampleInspector,
    indices: Sequence[int],
    *,
    processes: int | None = None,
    progress: bool = True,
) -> DatasetReport:
    """Look at these examples of a source, in parallel where there are many.

    Errors: those of `Look`.
    """
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    count = min(processes or os.cpu_count() or 1, len(chunks))
    with tqdm(total=len(indices), unit="img", disable=not progress) as bar:
        if count < 2:
            return _gathered(look, len(indices), _told(map(look, chunks), chunks, bar))
        with worker_pool.start_pool(count) as pool:
            return _gathered(look, len(indices), _told(pool.map(look, chunks), chunks, bar))


def _told(
    parts: Iterable[PartialReport], chunks: Sequence[Sequence[int]], bar: tqdm
) -> Iterable[PartialReport]:
    for part, chunk in zip(parts, chunks, strict=True):
        yield part
        bar.update(len(chunk))


def _gathered(
    look: ExampleInspector, looked_at: int, parts: Iterable[PartialReport]
) -> DatasetReport:
    lost, again, ones = SkipLog(), SkipLog(), list[ExampleStats]()
    lost.extend(look.source.skipped)
    for part in parts:
        ones += part.ones
        for reason, index, why in part.left_out:
            lost.add(reason, f"{look.source.key(index)}{why and f': {why}'}")
    seen: tuple[Counter[bytes], Counter[bytes]] = (Counter(), Counter())
    for one in ones:
        pairs, pictures = seen
        if pairs[one.pair]:
            again.add(SAME_PAIR, look.source.key(one.index))
        elif pictures[one.picture]:
            again.add(SAME_PICTURE, look.source.key(one.index))
        pairs[one.pair] += 1
        pictures[one.picture] += 1
    columns = {
        name: np.array([getattr(one, name) for one in ones], np.int64)
        for name in ("width", "height", "tokens", "captions", "bytes")
    }
    return DatasetReport(
        examples=len(look.source),
        looked_at=looked_at,
        left_out=lost.collected(),
        again=again.collected(),
        **columns,
    )


def _ended(image: bytes, kind: str) -> bool:
    """Whether a picture has its end, which downloads lack that were cut."""
    if kind in LENGTHS:
        at, more = LENGTHS[kind]
        return len(image) >= more + int.from_bytes(image[at : at + 4], "little")
    return image.rstrip(b"\0").endswith(ENDS[kind])


def _check_whole(image: bytes, kind: str) -> None:
    """Errors: Unreadable for a picture that cannot be decoded; many have bytes behind their end."""
    try:
        decode.decode_image(image)
    except decode.UnreadableImageError as error:
        cut = "" if _ended(image, kind) else f": a {kind} that was cut short"
        raise decode.UnreadableImageError(f"{error}{cut}") from error


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()
