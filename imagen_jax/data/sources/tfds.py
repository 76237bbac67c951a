"""A dataset that TensorFlow Datasets wrote as ArrayRecord files, read without TensorFlow."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex

from imagen_jax.config.sentences import join_texts
from imagen_jax.data.sources import base, tfds_records
from imagen_jax.data.sources.base import Address, SkippedNames
from imagen_jax.io.errors import CorruptDataError

PREFIX = "tfds:"  # of an address
FORMAT = "array_record"
MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Prepared:
    """A split that TFDS wrote as ArrayRecord files."""

    records: Any  # TFDS's data source of bytes
    features: Any  # TFDS's, of which the image and the texts are read
    address: Address
    shards: tfds_records.Shards
    skipped: Mapping[str, SkippedNames] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        if not 0 <= operator.index(index) < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        where = f"example {index} of {self.address.dataset}"
        raw = self.shards.read(self.records, operator.index(index), where)
        with tfds_records.naming_damage(where):
            record = self._parse(raw)
        try:
            captions = base.make_texts(record, self.address.text)
        except TypeError as error:
            raise ValueError(
                f"{self.address.dataset}: feature {self.address.text!r} of example {index} is "
                f"{error}: name a feature of texts with text="
            ) from error
        image = record[self.address.image]
        if not isinstance(image, bytes):
            raise ValueError(
                f"{self.address.dataset}: feature {self.address.image!r} of example {index} is no "
                "image: name a feature of images with image="
            )
        return base.make_example(image, captions)

    def key(self, index: int) -> str:
        return f"{self.address.split}-{index:07d}"

    def _parse(self, raw: bytes) -> Any:
        image, text = self.address.image, _text_feature(self.features, self.address.text)
        kept = tfds_records.keep_features(raw, image, [text])
        decoders = (_undecoded(self.features) or {}) | {image: _AsStored()}
        return self.features.deserialize_example_np(kept, decoders=decoders)


def open_tfds(address: Address, data_dir: Path | str) -> Prepared:
    """The examples of a split.

    Errors: FileNotFoundError for a dataset that is not under `data_dir`; ValueError for one without
    that split or those features, in files of another format, or whose files name
    classes of modules that the address does not allow.
    """
    import tensorflow_datasets as tfds

    builder = _find_builder(address, data_dir)
    info = builder.info
    if address.split not in info.splits:
        raise ValueError(
            f"{address.dataset} has no split {address.split!r} under {data_dir}; it has "
            f"{join_texts(info.splits) or 'none: prepare it first'}"
        )
    for feature in (address.image, address.text):
        if feature not in _leaves(info.features):
            raise ValueError(
                f"{address.dataset} has no feature {feature!r}; it has "
                f"{join_texts(_leaves(info.features))}"
            )
    split = info.splits[address.split]
    shards = tfds_records.Shards(
        _check_shards(split, f"{address.dataset} under {data_dir}"), split.shard_lengths
    )
    if info.file_format.value != FORMAT:
        raise ValueError(
            f"{address.dataset} is stored as {info.file_format.value}, and {FORMAT} alone is read: "
            f"prepare it with `tfds build --file_format={FORMAT}`"
        )
    with tfds_records.naming_damage(f"{address.dataset} under {data_dir}"):
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        records = builder.as_data_source(address.split, deserialize_method=raw, file_format=FORMAT)
    return Prepared(records, _wanted(info.features, address), address, shards)


def _wanted(features: Any, address: Address) -> Any:
    """The features that an address names, with all their parts.

    Errors: ValueError for an image that is a part of a feature.
    """
    import tensorflow_datasets as tfds

    if address.image not in features:
        raise ValueError(
            f"{address.dataset} has the image {address.image!r} inside another feature: name one "
            "that is not"
        )
    names = (address.image, _text_feature(features, address.text))
    return tfds.features.FeaturesDict({name: features[name] for name in names})


def _text_feature(features: Any, path: str) -> str:
    """The feature that a path of a text begins with; names may have slashes themselves."""
    return max((n for n in features if f"{path}/".startswith(f"{n}/")), key=len)


def _find_builder(address: Address, data_dir: Path | str) -> Any:
    """TFDS's builder of a dataset that is prepared. Errors: as `open_tfds`."""
    import tensorflow_datasets as tfds

    from imagen_jax.data.sources import tfds_classes

    name = address.dataset.removeprefix(PREFIX)
    tfds_classes.check_classes(address, name, data_dir)
    try:
        # From its files alone: the dataset's own code may need TensorFlow.
        with tfds_records.naming_damage(f"{address.dataset} under {data_dir}"):
            return tfds.core.read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except tfds.core.registered.DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"no TFDS dataset {name!r} under {data_dir}: prepare it there with "
            "`tfds build --file_format=array_record --data_dir=...`"
        ) from error


def _check_shards(split: Any, where: str) -> list[Path]:
    """List a split's files; refuse those that are not there, or too small for their examples.

    Errors: CorruptDataError.
    """
    counts = split.shard_lengths
    if len(counts) > MOST_SHARDS:
        raise CorruptDataError(f"{where} is said to have {len(counts):,} shards: copy it again")
    with tfds_records.naming_damage(where):  # the names are made of what the files say
        files = [Path(str(file)) for file in split.filepaths]
    for file, count in zip(files, counts, strict=True):
        size = file.stat().st_size if file.is_file() else 0
        if count > size:  # an example takes a byte or more
            raise CorruptDataError(
                f"{where} is said to have {count:,} examples in {file.name}, which has {size:,} "
                "bytes: copy or prepare the dataset again"
            )
    return files


class _AsStored:
    """A decoder that decodes nothing; TFDS's own has no images in sequences."""

    def setup(self, *, feature: Any) -> None:
        """Take note of no feature."""

    def decode_example_np(self, stored: Any) -> Any:
        """Return what is stored."""
        return stored

    decode_batch_example_np = decode_ragged_example_np = decode_example_np


def _undecoded(features: Any) -> Any:
    """Decoders that leave every image as it is stored: TFDS would decode those of any format.

    Of the formats that Pillow reads some run other programs.
    """
    import tensorflow_datasets as tfds

    inner = getattr(features, "feature", features)  # a sequence has one
    if hasattr(inner, "items"):
        found = {name: _undecoded(one) for name, one in inner.items()}
        return {name: decoder for name, decoder in found.items() if decoder} or None
    return _AsStored() if isinstance(inner, tfds.features.Image) else None


def _leaves(features: Any) -> list[str]:
    """Paths of all features, those in sequences of dicts too: captions/text."""
    inner = getattr(features, "feature", features)  # a sequence has one
    if not hasattr(inner, "items"):
        return [""]
    return sorted(
        f"{name}/{leaf}".removesuffix("/") for name, one in inner.items() for leaf in _leaves(one)
    )
