"""Where captioned pictures come from: datasets that TFDS prepared, ours among them."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable
from urllib.parse import parse_qsl

FAMILIES = ("shapes/", "emoji/")  # of the embedded datasets' names
TFDS = "tfds:"
FORMS = "shapes/NAME[?split=S], emoji[?split=S] or tfds:NAME[?split=S&image=FEATURE&text=FEATURE]"


@runtime_checkable
class Source(Protocol):
    """Captioned pictures by index: dicts with "image", encoded bytes, and "caption"."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Address(NamedTuple):
    """A source as it is written on a command line."""

    dataset: str  # shapes/full, emoji/full, tfds:coco_captions/2014
    split: str = "train"
    image: str = "image"  # names of features
    text: str = "caption"


@dataclass(frozen=True)
class First:
    """The first examples of a source."""

    source: Source
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[index]


@dataclass(frozen=True)
class Prepared(Sequence):
    """A split that TFDS wrote as ArrayRecord files."""

    records: Any  # TFDS's data source
    address: Address

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        record = self.records[operator.index(index)]
        text = record[self.address.text]
        caption = text.decode() if isinstance(text, bytes) else text
        if not isinstance(caption, str):
            raise ValueError(
                f"{self.address.dataset}: feature {self.address.text!r} of example {index} is no "
                f"text but {type(caption).__name__}: name a feature of one text with text="
            )
        return {"image": record[self.address.image], "caption": caption}


def parse(text: str) -> Address:
    """A source's address. Errors: ValueError that shows the forms there are."""
    dataset, _, query = text.partition("?")
    dataset = "emoji/full" if dataset == "emoji" else dataset  # the only one of its family
    if not dataset.startswith((*FAMILIES, TFDS)) or dataset in (*FAMILIES, TFDS):
        raise ValueError(f"no data source {text!r}: give {FORMS}")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(given) - {"split", "image", "text"}):
        raise ValueError(f"data source {text!r}: unknown {unknown[0]!r}; give {FORMS}")
    return Address(dataset, **given)


def open(address: Address, data_dir: Path | str) -> Source:
    """The examples at an address.

    Errors: FileNotFoundError for a dataset that is not under `data_dir`; ValueError for one without
    that split or those features, or in files that need TensorFlow.
    """
    if address.dataset.startswith(FAMILIES):
        return built(address.dataset, address.split, data_dir)
    return _prepared(address, data_dir)


def built(dataset: str, split: str, data_dir: Path | str) -> Source:
    """A split of an embedded dataset. Errors: as `embedded.source`."""
    if dataset.startswith("emoji/"):  # slow to import, and nothing else here needs them
        from imagen_jax.data import emoji as family
    else:
        from imagen_jax.data import shapes as family
    return family.source(dataset, split, data_dir)


def _prepared(address: Address, data_dir: Path | str) -> Prepared:
    import tensorflow_datasets as tfds

    name = address.dataset.removeprefix(TFDS)
    try:
        # From its files alone: the dataset's own code may need TensorFlow.
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except tfds.core.registered.DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"no TFDS dataset {name!r} under {data_dir}: prepare it there with "
            "`tfds build --file_format=array_record --data_dir=...`"
        ) from error
    info = builder.info
    if address.split not in info.splits:
        raise ValueError(
            f"{address.dataset} has no split {address.split!r} under {data_dir}; it has "
            f"{', '.join(info.splits) or 'none: prepare it first'}"
        )
    for feature in (address.image, address.text):
        if feature not in info.features:
            raise ValueError(
                f"{address.dataset} has no feature {feature!r}; it has {', '.join(info.features)}"
            )
    try:
        undecoded = {address.image: tfds.decode.SkipDecoding()}
        records = builder.as_data_source(address.split, decoders=undecoded)
    except NotImplementedError as error:
        raise ValueError(
            f"{address.dataset} is stored as {info.file_format.value}, which is read by sequence "
            "only: prepare it with `tfds build --file_format=array_record`"
        ) from error
    return Prepared(records, address)
