"""Encodes a dataset's captions once, into a store of (image, encoding) pairs (section 2.1)."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.data import records, transforms
from imagen_jax.data.records import Record, Store, TextDtype
from imagen_jax.text.encoder import TextEncoder

CHUNK = 512  # examples in memory at a time, and captions encoded together
MEMO_BYTES = 128 * 2**20  # of encodings kept for captions that come again


@runtime_checkable
class Encoder(Protocol):
    """What the cache needs of a text encoder; `encoder.TextEncoder` is one."""

    @property
    def identity(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def max_length(self) -> int: ...

    def encode(
        self, captions: Sequence[str]
    ) -> tuple[Float32[np.ndarray, "b n d"], Bool[np.ndarray, "b n"]]: ...


@runtime_checkable
class Source(Protocol):
    """Captioned pictures by index: dicts with "image", encoded bytes, and "caption"."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Picture(NamedTuple):
    """One example of a source, its caption not yet encoded."""

    key: str
    caption: str
    images: dict[int, bytes]


@dataclasses.dataclass(frozen=True)
class First:
    """The first examples of a source."""

    source: Source
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[index]


def encode(
    data: config.Data,
    text: config.Text,
    *,
    data_dir: Path | str,
    sizes: Sequence[int],
    encoder: Encoder | None = None,
    examples: int | None = None,
) -> Store:
    """The pairs of a dataset that was built, written unless they are there.

    `encoder` is the one that `text` names, if it is loaded already. `examples` keeps the dataset's
    first ones only, in a folder of their own.
    Errors: FileNotFoundError where the dataset was not built; ValueError as `target` and `write`.
    """
    from imagen_jax.data import shapes  # slow to import, and only encoding needs it

    encoder = encoder or TextEncoder.load(
        text.encoder, max_length=text.max_length, dtype=text.dtype
    )
    wanted = target(encoder, data_dir=data_dir, data=data, text=text, sizes=sizes)
    source: Source = shapes.source(data.dataset, data.split, data_dir)
    if examples is not None and examples < len(source):
        source, dataset = First(source, examples), f"{data.dataset}-first-{examples}"
        folder = path(data_dir, dataset=dataset, split=data.split, encoder=text.encoder)
        wanted = dataclasses.replace(wanted, folder=folder)
    return write(source, encoder, wanted)


def path(data_dir: Path | str, *, dataset: str, split: str, encoder: str) -> Path:
    """Where a dataset's pairs lie; an encoder that is a folder goes by its last name."""
    return Path(data_dir) / "encoded" / dataset.replace("/", "-") / Path(encoder).name / split


def target(
    encoder: Encoder,
    *,
    data_dir: Path | str,
    data: config.Data,
    text: config.Text,
    sizes: Sequence[int],
    dtype: TextDtype = "bfloat16",
) -> Store:
    """The store that `write` is to make, at its usual place.

    Errors: ValueError when the encoder is not the one that `text` describes.
    """
    for name in ("width", "max_length"):
        found, asked = getattr(encoder, name), getattr(text, name)
        if found != asked:
            raise ValueError(f"text.{name}={asked}, but encoder {text.encoder!r} has {found}")
    return Store(
        folder=path(data_dir, dataset=data.dataset, split=data.split, encoder=text.encoder),
        dataset=data.dataset,
        split=data.split,
        sizes=tuple(sorted(set(sizes))),
        encoder=Path(text.encoder).name,
        identity=encoder.identity,
        width=encoder.width,
        max_length=encoder.max_length,
        text_dtype=dtype,
    )


def write(source: Source, encoder: Encoder, target: Store, *, progress: bool = True) -> Store:
    """Encode a source into `target`, or reuse what is there if it is the same.

    Errors: ValueError when another encoding is there, naming both, or when a picture does not fit.
    """
    if (target.folder / records.INDEX).is_file():
        found = records.open(target.folder)
        _refuse_other(found, target, count=len(source))
        return found
    return records.write(target, _pairs(source, encoder, target, progress=progress))


def _refuse_other(found: Store, wanted: Store, *, count: int) -> None:
    names = ("dataset", "split", "encoder", "identity", "width", "max_length", "text_dtype")
    pairs = {name: (getattr(found, name), getattr(wanted, name)) for name in names}
    if not set(wanted.sizes) <= set(found.sizes):
        pairs["sizes"] = (found.sizes, wanted.sizes)
    pairs["count"] = (found.count, count)
    differing = [
        f"{n} {old!r} there, {new!r} wanted" for n, (old, new) in pairs.items() if old != new
    ]
    if differing:
        raise ValueError(
            f"{found.folder} holds another encoding: {'; '.join(differing)}; "
            "delete it or encode into another folder"
        )


def _pairs(source: Source, encoder: Encoder, target: Store, *, progress: bool) -> Iterator[Record]:
    """Records in the source's order; the next chunk's pictures are made while one is encoded."""
    memo = Memo(encoder, target.text_dtype)

    def load(index: int) -> Picture:
        example = source[index]
        key = f"{target.split}-{index:07d}"
        try:
            images = transforms.pyramid(example["image"], target.sizes)
        except ValueError as error:
            raise ValueError(f"{target.dataset} {key}: {error}") from error
        return Picture(key, example["caption"], images)

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(source), desc=target.dataset, unit="img", disable=not progress) as bar,
    ):
        chunks = [range(len(source))[i : i + CHUNK] for i in range(0, len(source), CHUNK)]
        loading = pool.map(load, chunks[0]) if chunks else iter(())
        for upcoming in [*chunks[1:], range(0)]:
            pictures = list(loading)
            loading = pool.map(load, upcoming)
            texts = memo.encode([picture.caption for picture in pictures])
            for picture, text in zip(pictures, texts, strict=True):
                yield Record(
                    key=picture.key, caption=picture.caption, images=picture.images, text=text
                )
            bar.update(len(pictures))


class Memo:
    """Encodings of captions, each computed once as long as they fit into memory."""

    def __init__(self, encoder: Encoder, text_dtype: TextDtype) -> None:
        self._encoder = encoder
        self._dtype = records.DTYPES[text_dtype]
        self._known: dict[str, Float[np.ndarray, "n d"]] = {}

    def encode(self, captions: Sequence[str]) -> list[Float[np.ndarray, "n d"]]:
        """Each caption's encoding without padding."""
        if sum(text.nbytes for text in self._known.values()) > MEMO_BYTES:
            self._known.clear()
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        if new:
            text, mask = self._encoder.encode(new)
            for caption, row, real in zip(new, text, mask, strict=True):
                self._known[caption] = row[real].astype(self._dtype)
        return [self._known[caption] for caption in captions]
