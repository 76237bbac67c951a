"""Where captioned pictures come from: an address leads to a source, examples by index."""

import operator
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable
from urllib.parse import parse_qsl

from imagen_jax import paths
from imagen_jax.data import examples
from imagen_jax.data.examples import Names

FAMILIES = ("shapes/", "emoji/")  # of the embedded datasets' names
TFDS, TARS, FOLDER, PARQUET, MIXTURE = "tfds:", "tars:", "folder:", "parquet:", "mixture:"
PATHS = (TARS, FOLDER, PARQUET, MIXTURE)
FORMS = (
    "shapes/NAME[?split=S], emoji[?split=S], tfds:NAME[?split=S&image=FEATURE&text=FEATURE],"
    " tars:PATH[?text=FIELD], folder:PATH[?text=COLUMN], parquet:PATH[?image=COLUMN&text=COLUMN],"
    " or mixture:FILE with such addresses in its lines, each with weight=W if not 1; PATH is a"
    " file, a folder, or has * or {000..099} (tars, parquet), and may begin with gs://"
)
OPTIONS = {
    **{family: {"split"} for family in FAMILIES},
    TFDS: {"split", "image", "text"},
    TARS: {"text"},
    FOLDER: {"text"},
    PARQUET: {"image", "text"},
    MIXTURE: set[str](),
}
TEXT = {
    **dict.fromkeys(FAMILIES, "caption"),
    TFDS: "caption",
    PARQUET: "text",
}  # where the texts are, if not named
INDICES = "indices"  # subfolder of the folder of datasets, for those of tars


@runtime_checkable
class Source(Protocol):
    """Captioned pictures by index: dicts as `examples.example` makes them.

    Those have "image", encoded bytes, "captions", a tuple of at least one, and "caption", its
    first. Threads may share a source, worker processes may copy it.
    """

    @property
    def skipped(self) -> Mapping[str, Names]:
        """Names of what is there but is no example, by reason."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def key(self, index: int) -> str:
        """A name of the example that stays, found without reading it."""
        ...


class Address(NamedTuple):
    """A source as it is written on a command line."""

    dataset: str  # shapes/full, emoji/full, tfds:coco_captions/2014, tars:/data/{0..9}.tar
    split: str = "train"
    image: str = "image"  # names of features
    text: str = "caption"
    weight: float = 1.0  # in a mixture, of its examples


@dataclass(frozen=True)
class First:
    """The first examples of a source."""

    source: Source
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[index]

    def key(self, index: int) -> str:
        return self.source.key(index)

    @property
    def skipped(self) -> Mapping[str, Names]:
        return self.source.skipped


@dataclass(frozen=True)
class Prepared(Sequence):
    """A split that TFDS wrote as ArrayRecord files."""

    records: Any  # TFDS's data source
    address: Address
    skipped: Mapping[str, Names] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        record = self.records[operator.index(index)]
        try:
            captions = examples.texts(record, self.address.text)
        except TypeError as error:
            raise ValueError(
                f"{self.address.dataset}: feature {self.address.text!r} of example {index} is "
                f"{error}: name a feature of texts with text="
            ) from error
        return examples.example(record[self.address.image], captions)

    def key(self, index: int) -> str:
        return f"{self.address.split}-{index:07d}"


def parse(text: str) -> Address:
    """A source's address. Errors: ValueError that shows the forms there are."""
    dataset, query = _split(text)
    dataset = "emoji/full" if dataset == "emoji" else dataset  # the only one of its family
    form = next((f for f in OPTIONS if dataset.startswith(f) and dataset != f), None)
    if form is None:
        raise ValueError(f"no data source {text!r}: give {FORMS}")
    given: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(given) - OPTIONS[form] - {"weight"}):
        raise ValueError(f"data source {text!r}: unknown {unknown[0]!r}; give {FORMS}")
    if "weight" in given:
        try:
            given["weight"] = float(given["weight"])
        except ValueError as error:
            raise ValueError(
                f"data source {text!r}: weight={given['weight']} is no number"
            ) from error
    return Address(dataset, **{"text": TEXT.get(form, "")} | given)


def _split(text: str) -> tuple[str, str]:
    """An address and what follows its `?`, which may be in the name of a path that is there."""
    form = next((f for f in PATHS if text.startswith(f)), None)
    there = 0  # how much of the text is a path that is there
    if form is not None:
        ends = [found.start() for found in re.finditer(r"[/?]|$", text)]
        paths = {end: os.path.expanduser(text[len(form) : end]) for end in ends}
        there = max((end for end, path in paths.items() if os.path.exists(path)), default=0)
    query = text.find("?", there)
    return (text, "") if query < 0 else (text[:query], text[query + 1 :])


def open(address: Address, data_dir: Path | str) -> Source:
    """The examples at an address.

    Errors: FileNotFoundError for a dataset that is not there, under `data_dir` or at its path;
    ValueError for one without that split or those features, without any example, or in files that
    need what is not installed.
    """
    form = next(form for form in OPTIONS if address.dataset.startswith(form))
    place = address.dataset.removeprefix(form)
    # Each is imported where it is needed: some are slow, and none needs the others.
    if form in FAMILIES:
        return built(address.dataset, address.split, data_dir)
    if form == TARS:
        from imagen_jax.data import tars

        return tars.open(place, field=address.text, cache=Path(data_dir) / INDICES)
    if form == FOLDER:
        from imagen_jax.data import folders

        return folders.open(place, column=address.text)
    if form == PARQUET:
        from imagen_jax.data import parquet

        return parquet.open(place, image=address.image, text=address.text)
    if form == MIXTURE:
        return mixed(listed(place), data_dir)
    return _prepared(address, data_dir)


def mixed(addresses: Sequence[Address], data_dir: Path | str) -> Source:
    """Several sources as one, by their weights; a single one as it is.

    Errors: as `open`; ValueError for weights that cannot be mixed.
    """
    from imagen_jax.data.mixtures import Mixture

    sources = tuple(open(address, data_dir) for address in addresses)
    if len(sources) == 1:
        return sources[0]
    return Mixture(sources, tuple(address.weight for address in addresses))


def listed(file: str) -> list[Address]:
    """The addresses in a file, one a line; lines that are blank or begin with # are left out.

    Errors: FileNotFoundError for no file; ValueError for one without addresses, or with a mixture.
    """
    path = paths.local(file)
    if not path.is_file():
        raise FileNotFoundError(f"no file {file} of a mixture: write addresses of sources into it")
    lines = [line.strip() for line in examples.decoded(path.read_bytes()).splitlines()]
    addresses = [parse(line) for line in lines if line and not line.startswith("#")]
    if not addresses:
        raise ValueError(f"mixture {file} has no sources: give {FORMS}, one a line")
    if nested := [a.dataset for a in addresses if a.dataset.startswith(MIXTURE)]:
        raise ValueError(
            f"mixture {file} has {nested[0]} in it: put that one's lines there instead"
        )
    return addresses


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
        if feature not in _leaves(info.features):
            raise ValueError(
                f"{address.dataset} has no feature {feature!r}; it has "
                f"{', '.join(_leaves(info.features))}"
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


def _leaves(features: Any) -> list[str]:
    """Paths of all features, those in sequences of dicts too: captions/text."""
    inner = getattr(features, "feature", features)  # a sequence has one
    if not hasattr(inner, "items"):
        return [""]
    return sorted(
        f"{name}/{leaf}".removesuffix("/") for name, one in inner.items() for leaf in _leaves(one)
    )
