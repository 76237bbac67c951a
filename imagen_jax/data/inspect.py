"""Inspection of a source before anything is made of it: sizes, lengths, damage, duplicates.

Headers and ends of images are read, and captions; images are decoded on request, and where their
end is not at the end of their bytes.
"""

import dataclasses
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.config import Filters
from imagen_jax.data import dataset_report, worker_pool
from imagen_jax.data.dataset_report import DatasetReport
from imagen_jax.data.images import crop, decode, filters
from imagen_jax.data.sources import addresses
from imagen_jax.data.sources.base import SkipLog, Source
from imagen_jax.io import image_grid
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.text import encoder_folders
from imagen_jax.text.tokenizer import Tokenizer

CHUNK = 2048  # examples that a process is given at once
# The end of a file, but for zeros behind it.
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b"\0;"}
LENGTHS = {"WEBP": (4, 8), "BMP": (2, 0)}  # where files say how long they are, less how much
DIGEST = 8  # bytes: of a million images two collide once in 40 million times
SAME_IMAGE, SAME_PAIR = "image again", "image and caption again"
SIDE, COLUMNS = 160, 6  # pixels of an image on the contact sheet, and images of a row
CAPTION = 200  # characters of one on the contact sheet

Digest: TypeAlias = bytes
Lengths = Callable[[Sequence[str]], Sequence[int]]  # tokens of captions


class ExampleStats(NamedTuple):
    """An example that can be read."""

    index: int  # type: ignore[assignment]  # it hides tuple.index
    width: int
    height: int
    tokens: int  # of its longest caption
    captions: int
    bytes: int
    image: Digest
    pair: Digest


@dataclass
class PartialReport:
    """Inspected examples, a part of a source."""

    ones: list[ExampleStats] = field(default_factory=list)
    left_out: list[tuple[str, int, str]] = field(default_factory=list)  # reason, index, why


@dataclass(frozen=True)
class ExampleInspector:
    """Inspects examples; processes get a copy."""

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
            digest = _digest(image)
            pair = _digest(digest + "\n".join(texts).encode())
            part.ones.append(
                ExampleStats(
                    index, header.width, header.height, 0, len(texts), len(image), digest, pair
                )
            )
        tokens = iter(self.lengths([text for texts in captions for text in texts]))
        most = [max(next(tokens) for _ in texts) for texts in captions]
        part.ones = [one._replace(tokens=n) for one, n in zip(part.ones, most, strict=True)]
        return part


@dataclass(frozen=True)
class InspectionSettings:
    """Extent of an inspection."""

    sample: config.Count | None = None
    """Look at so many examples alone, drawn at random."""
    decode: bool = False
    """Decode every image, which takes long, and finds damage in their middle."""
    tokenizer: str = "t5_1_1_mini"
    """Counts tokens: an embedded encoder's name, or a SentencePiece FILE.model."""
    filters: config.Filters = config.Filters()
    workers: config.Workers | None = None
    """Processes; default: one per core."""
    count: config.Images = 24
    """Images of the contact sheet."""
    seed: config.Seed = 0
    """Seed of what is drawn at random."""


DEFAULTS = InspectionSettings()


def inspect_source(
    address: str,
    settings: InspectionSettings = DEFAULTS,
    *,
    data_dir: Path = Path("data"),
    progress: bool = True,
) -> DatasetReport:
    """Inspect a data source by its address, as `imagen data check` does; nothing is written.

    Errors: ValueError for an address that is none, or a setting that is out of its range.
    """
    config.check_fields(settings, "inspection")
    source = addresses.open_source(addresses.parse_address(address), data_dir)
    draw = np.random.default_rng(settings.seed)
    count = min(settings.sample or len(source), len(source))
    chosen: Sequence[int] = range(len(source))
    if count < len(source):
        chosen = np.sort(draw.choice(len(source), count, replace=False)).tolist()
    inspector = ExampleInspector(
        source, settings.filters, _load_tokenizer(settings.tokenizer).lengths, settings.decode
    )
    start = time.perf_counter()
    found = inspect_examples(
        inspector, chosen, processes=settings.workers, progress=progress, name=address
    )
    seconds = time.perf_counter() - start
    some = draw.choice(len(source), min(settings.count, len(source)), replace=False)
    sheet = draw_contact_sheet(source, some.tolist())
    return dataclasses.replace(found, contact_sheet=sheet, seconds=seconds)


def inspect_examples(
    look: ExampleInspector,
    indices: Sequence[int],
    *,
    processes: int | None = None,
    progress: bool = True,
    name: str = "",
) -> DatasetReport:
    """Inspect these examples of a source, in parallel where there are many; without images.

    Errors: those of `ExampleInspector`.
    """
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    count = min(processes or os.cpu_count() or 1, len(chunks))
    with tqdm(total=len(indices), unit="img", disable=not progress) as bar:
        if count < 2:
            parts = _reported(map(look, chunks), chunks, bar)
            return _gathered(look, len(indices), parts, name)
        with worker_pool.start_pool(count) as pool:
            parts = _reported(pool.map(look, chunks), chunks, bar)
            return _gathered(look, len(indices), parts, name)


def draw_contact_sheet(source: Source, indices: Sequence[int]) -> Image.Image | None:
    """Draw images with their captions; damaged ones are left out, and None is for no image."""
    images, captions = [], []
    for index in indices:
        try:
            example = source[index]
            header = decode.read_header(example["image"])
            side = min(header.width, header.height, SIDE)
            window: dict[str, Any] = {"framing": config.Framing(), "rng": np.random.default_rng(0)}
            images.append(crop.frame_image(example["image"], side, **window))
        except (CorruptDataError, decode.UnreadableImageError):
            continue
        captions.append(example["caption"][:CAPTION])
    if not images:
        return None
    columns = min(COLUMNS, len(images))
    return image_grid.draw_grid(images, captions, side=SIDE, columns=columns)


def _load_tokenizer(name: str) -> Tokenizer:
    if name in encoder_folders.EMBEDDED:
        return Tokenizer.load(encoder_folders.find_tokenizer(str(encoder_folders.EMBEDDED[name])))
    return Tokenizer.load(name)


def _reported(
    parts: Iterable[PartialReport], chunks: Sequence[Sequence[int]], bar: tqdm
) -> Iterable[PartialReport]:
    for part, chunk in zip(parts, chunks, strict=True):
        yield part
        bar.update(len(chunk))


def _gathered(
    look: ExampleInspector, looked_at: int, parts: Iterable[PartialReport], name: str
) -> DatasetReport:
    lost, again, ones = SkipLog(), SkipLog(), list[ExampleStats]()
    lost.extend(look.source.skipped)
    for part in parts:
        ones += part.ones
        for reason, index, why in part.left_out:
            lost.add(reason, f"{look.source.key(index)}{why and f': {why}'}")
    seen: tuple[Counter[bytes], Counter[bytes]] = (Counter(), Counter())
    for one in ones:
        pairs, images = seen
        if pairs[one.pair]:
            again.add(SAME_PAIR, look.source.key(one.index))
        elif images[one.image]:
            again.add(SAME_IMAGE, look.source.key(one.index))
        pairs[one.pair] += 1
        images[one.image] += 1
    columns: dict[str, Any] = {
        column: np.array([getattr(one, column) for one in ones], np.int64)
        for column in dataset_report.COLUMNS
    }
    return DatasetReport(
        name=name,
        examples=len(look.source),
        looked_at=looked_at,
        left_out=lost.collect(),
        again=again.collect(),
        **columns,
    )


def _ended(image: bytes, kind: str) -> bool:
    """True if an image has its end, which downloads lack that were cut."""
    if kind in LENGTHS:
        at, more = LENGTHS[kind]
        return len(image) >= more + int.from_bytes(image[at : at + 4], "little")
    return image.rstrip(b"\0").endswith(ENDS[kind])


def _check_whole(image: bytes, kind: str) -> None:
    """Errors: UnreadableImageError if it cannot be decoded; many have bytes behind their end."""
    try:
        decode.decode_image(image)
    except decode.UnreadableImageError as error:
        cut = "" if _ended(image, kind) else f": a {kind} that was cut short"
        raise decode.UnreadableImageError(f"{error}{cut}") from error


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()
