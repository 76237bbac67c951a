"""Encodes a dataset's captions once, into a store of (image, encoding) pairs (section 2.1).

A store's shards are encoded one by one, each from its own captions alone: whichever process does it
and however often the work was interrupted, a shard's bytes are the same.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.data.prepare import images
from imagen_jax.data.prepare.images import PreparedImage
from imagen_jax.data.sources import addresses
from imagen_jax.data.sources.base import First, Source
from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import Encoding, Record, TextDtype
from imagen_jax.data.store.store import Store
from imagen_jax.io import folder_files
from imagen_jax.io.workdir import Workdir
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.packing import PackingPlan


@runtime_checkable
class CaptionEncoder(Protocol):
    """The part of a text encoder that preparation needs; `encoder.TextEncoder` is one."""

    @property
    def identity(self) -> str: ...

    @property
    def vocabulary(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def max_length(self) -> int: ...

    @property
    def clean(self) -> bool: ...

    @property
    def dtype(self) -> config.EncoderDtype: ...

    def plan(self, captions: Sequence[str]) -> PackingPlan: ...

    def run(self, plan: PackingPlan) -> Iterator[tuple[int, Float[np.ndarray, "n d"]]]: ...

    def cut_text(self, caption: str) -> str: ...


class ProcessShare(NamedTuple):
    """This process's part: every shard whose number is `process` modulo `processes`."""

    process: int = 0
    processes: int = 1


SINGLE_PROCESS = ProcessShare()


@dataclass(frozen=True)
class Counts:
    """Captions and tokens that were encoded; counts add up."""

    captions: int = 0
    different: int = 0  # captions that were encoded: those that come again in a shard are not
    useful: int = 0  # tokens
    computed: int = 0  # tokens, padding included
    cut: int = 0  # captions longer than the encoder takes
    squared_error: float = 0.0  # of what is stored, against the encoder's result
    squared: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Counts(*(a + b for a, b in pairs))

    @property
    def error(self) -> float:
        """Root mean square error of what is stored, relative to the encodings' own."""
        return (self.squared_error / self.squared) ** 0.5 if self.squared else 0.0


class Written(NamedTuple):
    """Result of `write_store`; without a store as long as other processes have not finished."""

    store: Store | None
    counts: Counts = Counts()


def encode_source(
    data: config.Data,
    text: config.Text,
    *,
    data_dir: Path | str,
    sizes: Sequence[int],
    encoder: CaptionEncoder | None = None,
    examples: int | None = None,
) -> Store:
    """The pairs of a dataset that was built, written unless they are there.

    `encoder` is the one that `text` names, if it is loaded already. `examples` keeps the dataset's
    first ones only, in a folder of their own.
    Errors: FileNotFoundError where the dataset was not built; ValueError as `store_target` and
    `write_store`.
    """
    encoder = encoder or TextEncoder.from_config(text)
    source, dataset = addresses.open_embedded(data.dataset, data.split, data_dir), data.dataset
    if examples is not None and examples < len(source):
        source, dataset = First(source, examples), f"{dataset}-first-{examples}"
    wanted = store_target(
        encoder,
        source,
        folder=store_path(data_dir, dataset=dataset, split=data.split, encoder=text.encoder),
        data=dataclasses.replace(data, dataset=dataset),
        text=text,
        sizes=sizes,
    )
    written = write_store(source, encoder, wanted).store
    assert written is not None  # alone, it wrote every shard
    return written


def store_path(data_dir: Path | str, *, dataset: str, split: str, encoder: str) -> Path:
    """Return the folder of a dataset's pairs; an encoder that is a folder goes by its last name."""
    return Path(data_dir) / "encoded" / dataset.replace("/", "-") / Path(encoder).name / split


def store_target(
    encoder: CaptionEncoder,
    source: Source,
    *,
    folder: Workdir,
    data: config.Data,
    text: config.Text,
    sizes: Sequence[int],
) -> Store:
    """The store that `write` is to make.

    Errors: ValueError when the encoder is not the one that `text` describes.
    """
    for name in ("width", "max_length", "clean", "clean_caption", "lower_case", "padding"):
        asked = getattr(text, name)
        found = getattr(encoder, name, asked)  # the last three are T5's alone
        if found != asked:
            raise ValueError(f"text.{name}={asked}, but encoder {text.encoder!r} has {found}")
    return Store(
        folder=folder,
        dataset=data.dataset,
        split=data.split,
        count=len(source),
        sizes=tuple(sorted(set(sizes))),
        encoder=Path(text.encoder).name,
        identity=encoder.identity,
        vocabulary=encoder.vocabulary,
        width=encoder.width,
        max_length=encoder.max_length,
        clean=encoder.clean,
        clean_caption=text.clean_caption,
        lower_case=text.lower_case,
        padding=text.padding,
        computed_in=encoder.dtype,
    )


def write_store(
    source: Source,
    encoder: CaptionEncoder,
    target: Store,
    *,
    share: ProcessShare = SINGLE_PROCESS,
    progress: bool = True,
) -> Written:
    """Encode this process's share of a source into `target`; what is there already is kept.

    Errors: ValueError when another encoding is there, naming both, or when an image does not fit.
    """
    if (found := find_finished(target)) is not None:
        return Written(found)
    # Before there is anything: an encoder that computes nonsense leaves nothing behind.
    empty = encode_empty(encoder, target) if share.process == 0 else None
    missing = [n for n in store.begin_store(target) if n % share.processes == share.process]
    if empty is not None:
        store.write_left_out(target, source.skipped)
        store.write_empty(target, empty)  # last: without it no process completes the store
    counts = Counts()
    total = sum(len(target.shards()[n]) for n in missing)
    with tqdm(total=total, desc=target.dataset, unit="img", disable=not progress) as bar:
        for part in write_shards(source, encoder, target, missing, done=bar.update):
            counts += part
            bar.set_postfix_str(f"{counts.useful / max(counts.computed, 1):.0%} of tokens useful")
    return Written(store.finish_store(target), counts)


def find_finished(target: Store) -> Store | None:
    """The store that is there already, if it is whole.

    Errors: ValueError when it is another one, naming what differs.
    """
    if store.INDEX not in folder_files.list_files(target.folder):
        return None
    found = store.open_store(target.folder)
    store.refuse_other(found, target)
    return found


def encode_empty(encoder: CaptionEncoder, target: Store) -> Encoding:
    """The empty caption's encoding as a store has it. Errors: ValueError if it is not finite."""
    (_, empty), *_ = encoder.run(encoder.plan([""]))
    return _kept(empty, "", target.text_dtype)


def write_shards(
    source: Source,
    encoder: CaptionEncoder,
    target: Store,
    numbers: Sequence[int],
    *,
    done: Callable[[int], Any],
    threads: int | None = None,
) -> Iterator[Counts]:
    """Write shards of a store that was begun; the counts of each.

    `done` is told of how many examples there is nothing left to do but writing.
    Errors: ValueError when an image does not fit, or an encoding is not finite.
    """
    for number, prepared, lacks in images.prepare_shards(source, target, numbers, threads=threads):
        texts, found = _encoded(encoder, prepared, target.text_dtype, done)
        store.write_shard(target, number, _records(prepared, texts), lacks=lacks)
        done(len(lacks))
        yield found


def _encoded(
    encoder: CaptionEncoder,
    prepared: Sequence[PreparedImage],
    dtype: TextDtype,
    done: Callable[[int], Any],
) -> tuple[dict[str, Encoding], Counts]:
    """The encodings of a shard's captions as they are stored, each computed once.

    `done` is told of how many images the first caption is encoded.
    """
    captions = Counter(caption for image in prepared for caption in image.captions)
    firsts = Counter(image.captions[0] for image in prepared)
    different = list(captions)
    plan = encoder.plan(different)
    texts: dict[str, Encoding] = {}
    error = squared = 0.0
    for index, text in encoder.run(plan):
        texts[different[index]] = kept = _kept(text, different[index], dtype)
        wide = text.astype(np.float32)
        error += float(np.sum(np.square(kept.array().astype(np.float32) - wide)))
        squared += float(np.sum(np.square(wide)))
        done(firsts[different[index]])
    # Only a caption that fills the length can have lost something: few are tokenised twice.
    full = [
        c
        for c, p in zip(different, plan.places, strict=True)
        if p.end - p.start == encoder.max_length
    ]
    return texts, Counts(
        captions=captions.total(),
        different=len(different),
        useful=plan.useful,
        computed=plan.computed,
        cut=sum(bool(encoder.cut_text(caption)) for caption in full),
        squared_error=error,
        squared=squared,
    )


def _kept(text: Float[np.ndarray, "n d"], caption: str, dtype: TextDtype) -> Encoding:
    """An encoding as it is stored. Errors: ValueError, naming its caption, if it is not finite."""
    kept = records.round_encoding(text, dtype)
    if not kept.is_finite():
        raise ValueError(
            f"the encoding of {config.shorten(caption)} is not finite as it is stored, in "
            f"{dtype}: a sound encoder's is far below the largest {dtype}"
        )
    return kept


def _records(prepared: Sequence[PreparedImage], texts: dict[str, Encoding]) -> Iterator[Record]:
    for image in prepared:
        yield Record(
            key=image.key,
            captions=image.captions,
            images=image.images,
            texts=tuple(texts[caption] for caption in image.captions),
        )
