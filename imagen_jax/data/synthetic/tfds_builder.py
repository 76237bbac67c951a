"""Base of the embedded datasets: TFDS builders whose images are made here, not downloaded.

They are written as ArrayRecord files and read again without TensorFlow.
"""

import operator
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from imagen_jax.data.sources import base, tfds_records
from imagen_jax.data.sources.base import SkippedNames
from imagen_jax.io import json_reader, removal
from imagen_jax.io.errors import CorruptDataError

IMAGE = "image"  # the feature
SPLITS = ("train", "validation", "held_out")  # a split's place is its stream of random numbers
FILES = ("dataset_info.json", "features.json", "metadata.json")


class Builder(  # type: ignore[call-arg]  # TFDS has no types
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """A builder with these splits; its configs tell by `recipe()` what the images depend on.

    Images are squares of SIDE pixels; TEXTS are the names of an example's texts, SEVERAL of those
    that an example has more than one of.
    """

    SIDE: ClassVar[int]
    TEXTS: ClassVar[tuple[str, ...]]
    SEVERAL: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        config: Any = None,
        data_dir: str | os.PathLike[str] | None = None,
        version: str | None = None,
        file_format: str = "array_record",
        inputs: Any = None,
    ) -> None:
        """TFDS's arguments, and what the images are made of, which only building needs."""
        self.inputs = inputs
        super().__init__(config=config, data_dir=data_dir, version=version, file_format=file_format)

    def _info(self) -> tfds.core.DatasetInfo:
        square = (self.SIDE, self.SIDE, 3)
        features = {
            IMAGE: tfds.features.Image(shape=square, encoding_format="png"),
            **{name: tfds.features.Text() for name in self.TEXTS},
            **{name: tfds.features.Sequence(tfds.features.Text()) for name in self.SEVERAL},
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=None,
            disable_shuffling=True,  # the builder's own order, the same everywhere
            metadata=tfds.core.MetadataDict(recipe=self.builder_config.recipe(), **self._origins()),
        )

    def _origins(self) -> dict[str, str]:
        """What else is stored with the images: digests of the inputs, versions of libraries."""
        return {}

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _log_download_bytes(self) -> None:
        """Replaces TFDS's announcement: nothing is downloaded."""

    def _log_download_done(self) -> None:
        """Replaces TFDS's announcement: the caller knows what it asked for."""


@dataclass(frozen=True)
class TfdsSource:
    """Random access to a split: examples, and the dataset's other texts by name."""

    records: Any  # TFDS's data source of bytes
    features: Any  # TFDS's
    shards: tfds_records.Shards
    split: str
    skipped: Mapping[str, SkippedNames] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        if not 0 <= operator.index(index) < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        where = f"example {index} of {self.split}"
        raw = self.shards.read(self.records, operator.index(index), where)
        with tfds_records.naming_damage(where):
            record = self._parse(raw)
        image, caption = record.pop(IMAGE), _text(record.pop("caption"))
        others: dict[str, Any] = {name: _text(value) for name, value in record.items()}
        captions = others.pop("captions", (caption,))
        return others | base.make_example(image, captions)

    def key(self, index: int) -> str:
        """`train-0000012`."""
        return f"{self.split}-{index:07d}"

    def _parse(self, raw: bytes) -> dict[str, Any]:
        """The features of a record; the image stays as it is stored."""
        kept = tfds_records.keep_features(raw, IMAGE, self.features.keys() - {IMAGE})
        undecoded = {IMAGE: tfds.decode.SkipDecoding()}
        return dict(self.features.deserialize_example_np(kept, decoders=undecoded))


def write_dataset(builder: Builder) -> None:
    """Prepare a dataset, which appears under its name only once it is whole."""
    target = Path(builder.data_dir)
    for left_over in target.parent.glob(f"incomplete.*_{target.name}"):
        removal.remove_folder(left_over)  # a build that was killed
    tfds.disable_progress_bar()  # our builders show their own
    with tempfile.TemporaryDirectory() as unused:  # else TFDS leaves an empty downloads folder
        builder.download_and_prepare(download_dir=unused)


def find_built(kind: type[Builder], name: str, data_dir: str | Path) -> Builder | None:
    """A builder over the dataset `name` of a family, whole; None where it was not built.

    Errors: ValueError for an unknown name, and for a dataset that is damaged or of another recipe.
    """
    folder = _folder(kind, name, data_dir)
    if not folder.exists():
        return None
    for file in FILES:
        _check_json(folder / file)
    builder = kind(config=config_of(kind, name), data_dir=data_dir)
    if builder.info.metadata["recipe"] != builder.builder_config.recipe():
        raise _unusable(folder, "it was made by another recipe than today's")
    for split in SPLITS:
        info = builder.info.splits[split]
        for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
            _check_shard(Path(path), length)
    return builder


def open_built(kind: type[Builder], name: str, split: str, data_dir: str | Path) -> TfdsSource:
    """A split of a dataset that was built.

    Errors: FileNotFoundError where it was not built; ValueError for an unknown name or split or an
    unusable dataset.
    """
    if split not in SPLITS:
        raise ValueError(f"{kind.name} has no split {split!r}; it has {', '.join(SPLITS)}")
    builder = find_built(kind, name, data_dir)
    if builder is None:
        folder = _folder(kind, name, data_dir)
        raise FileNotFoundError(f"no dataset in {folder}; run `imagen data` to build it")
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split, deserialize_method=raw)
    return TfdsSource(records, builder.info.features, _shards_of(builder, split), split)


def _shards_of(builder: Builder, split: str) -> tfds_records.Shards:
    info = builder.info.splits[split]
    return tfds_records.Shards([Path(path) for path in info.filepaths], info.shard_lengths)


def config_of(kind: type[Builder], name: str) -> str:
    """`full` for `shapes/full` or `full`. Errors: ValueError that lists the family's datasets."""
    config = name.removeprefix(f"{kind.name}/")
    names = [config.name for config in kind.BUILDER_CONFIGS]
    if config not in names:
        raise ValueError(f"no dataset {name!r}; known: {', '.join(names)}")
    return config


def _folder(kind: type[Builder], name: str, data_dir: str | Path) -> Path:
    return Path(data_dir) / kind.name / config_of(kind, name) / str(kind.VERSION)


def _text(value: Any) -> str | tuple[str, ...]:
    """A feature's text or texts, which TFDS gives as bytes."""
    return value.decode() if isinstance(value, bytes) else tuple(text.decode() for text in value)


def _check_json(path: Path) -> None:
    if not path.is_file():
        raise _unusable(path.parent, f"{path.name} is missing")
    try:
        json_reader.read_object(path, remedy="build it again")
    except ValueError as error:
        raise _unusable(path.parent, f"{path.name} was cut short") from error


def _check_shard(path: Path, length: int) -> None:
    if not path.is_file():
        raise _unusable(path.parent, f"{path.name} is missing")
    try:
        if length:
            tfds_records.ShardSizes(path).unpacked_size(0)  # its footer is of bounded size
        reader = ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except (RuntimeError, CorruptDataError) as error:  # the index is at the end of the file
        raise _unusable(path.parent, f"{path.name} was cut short") from error
    except ValueError as error:
        raise _unusable(path.parent, f"{path.name}: {error}") from error
    if found != length:
        raise _unusable(path.parent, f"{path.name} has {found} images instead of {length}")


def _unusable(folder: Path, what: str) -> ValueError:
    return ValueError(
        f"unusable dataset {folder}: {what}; delete that folder and run `imagen data` again"
    )
