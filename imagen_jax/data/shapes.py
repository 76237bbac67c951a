"""The embedded dataset of captioned shapes: a TFDS builder with nothing to download.

`build` writes it, `source` reads it; neither needs TensorFlow.
"""

import io
import json
import operator
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from jaxtyping import UInt8
from tqdm import tqdm

from imagen_jax.data import examples
from imagen_jax.data.examples import Names
from imagen_jax.data.painting import SIDE, Series, paint_all, picture
from imagen_jax.data.scenes import Grammar

SPLITS = ("train", "validation", "held_out")  # a split's place is its stream of random numbers
FILES = ("dataset_info.json", "features.json", "metadata.json")


@dataclass(eq=False, kw_only=True)
class ShapesConfig(tfds.core.BuilderConfig):
    """How many examples each split has, and the grammar they are drawn from."""

    train: int
    validation: int
    held_out: int
    grammar: Grammar = field(default_factory=Grammar)
    seed: int = 0

    def size(self, split: str) -> int:
        """The number of examples of a split."""
        return dict(zip(SPLITS, (self.train, self.validation, self.held_out), strict=True))[split]

    def grammar_of(self, split: str) -> Grammar:
        """The grammar that a split is drawn from."""
        return replace(self.grammar, pairs="only") if split == "held_out" else self.grammar

    def recipe(self) -> str:
        """All that the pictures depend on; stored with them."""
        return f"{self.seed=} {self.train=} {self.validation=} {self.held_out=} {self.grammar=}"


class Shapes(tfds.core.GeneratorBasedBuilder):
    """One or two coloured shapes on a plain ground, 256 x 256, captioned."""

    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = (
        ShapesConfig(
            name="full",
            description="Every shape, colour, fill and phrasing.",
            train=150_000,  # .7 GB; past 1 GB TFDS would need TensorFlow to write it
            validation=2_000,
            held_out=2_000,
        ),
        ShapesConfig(
            name="quickstart",
            description="What a few minutes can learn: mostly single, plain shapes.",
            train=12_000,
            validation=500,
            held_out=500,
            grammar=Grammar(single=0.7, patterned=0.25, plain=0.8),
        ),
        ShapesConfig(
            name="tiny",
            description="A handful, for tests.",
            train=40,
            validation=8,
            held_out=8,
        ),
    )

    def __init__(
        self,
        *,
        config: str | ShapesConfig | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        version: str | None = None,
        file_format: str = "array_record",
        workers: int | None = None,
    ) -> None:
        """TFDS's arguments, and how many processes paint (None: one for each CPU)."""
        super().__init__(config=config, data_dir=data_dir, version=version, file_format=file_format)
        self._workers = workers or os.cpu_count() or 1

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
            "caption": tfds.features.Text(),
            "scene": tfds.features.Text(),  # the scene as JSON, see scenes.from_json
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=None,
            disable_shuffling=True,  # example i of a split is scene i of its stream
            metadata=tfds.core.MetadataDict(recipe=self.builder_config.recipe()),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        series = Series(config.grammar_of(split), config.seed, SPLITS.index(split))
        count = config.size(split)
        painted = paint_all(series, count, workers=self._workers)
        name = f"shapes/{config.name} {split}"
        for index, example in enumerate(tqdm(painted, name, count, unit=" pictures")):
            yield (
                index,
                {
                    "image": io.BytesIO(example.image),  # encoded bytes need no TensorFlow
                    "caption": example.caption,
                    "scene": example.scene,
                },
            )

    def _log_download_bytes(self) -> None:
        """Replaces TFDS's announcement: nothing is downloaded."""

    def _log_download_done(self) -> None:
        """Replaces TFDS's announcement: the caller knows what it asked for."""


def build(name: str, data_dir: str | Path, *, workers: int | None = None) -> Shapes:
    """Paints the dataset `name` (full, quickstart or tiny) under `data_dir`, unless it is there.

    It appears under its name only once it is whole. Errors: ValueError for an unknown name or an
    unusable dataset.
    """
    folder = _folder(name, data_dir)
    if folder.exists():
        return _open(name, data_dir)
    for left_over in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(left_over)  # a build that was killed
    builder = Shapes(config=_config(name), data_dir=data_dir, workers=workers)
    tfds.disable_progress_bar()  # this builder shows its own
    with tempfile.TemporaryDirectory() as unused:  # else TFDS leaves an empty downloads folder
        builder.download_and_prepare(download_dir=unused)
    return builder


@dataclass(frozen=True)
class Source(Sequence):
    """Random access to a split: examples with their scene (JSON)."""

    records: Any  # TFDS's data source, whose texts are bytes
    split: str
    skipped: Mapping[str, Names] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        if not 0 <= operator.index(index) < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        record = self.records[index]
        made = examples.example(record["image"], (record["caption"].decode(),))
        return made | {"scene": record["scene"].decode()}

    def key(self, index: int) -> str:
        """`train-0000012`."""
        return f"{self.split}-{index:07d}"


def source(name: str, split: str, data_dir: str | Path) -> Source:
    """A split of a dataset that was built.

    Errors: FileNotFoundError where it was not built; ValueError for an unknown name or split or an
    unusable dataset.
    """
    if split not in SPLITS:
        raise ValueError(f"shapes has no split {split!r}; it has {', '.join(SPLITS)}")
    folder = _folder(name, data_dir)
    if not folder.exists():
        raise FileNotFoundError(f"no dataset in {folder}; run `imagen data` to build it")
    builder = _open(name, data_dir)
    undecoded = {"image": tfds.decode.SkipDecoding()}
    return Source(builder.as_data_source(split, decoders=undecoded), split)


def exam(
    name: str, split: str, *, count: int, seed: int = 0, size: int = SIDE
) -> tuple[list[str], UInt8[np.ndarray, "b size size 3"]]:
    """New captions in a split's manner, in no dataset, and pictures that show what they say.

    Shapes: pixels (count, size, size, 3).
    """
    config = Shapes.builder_configs[_config(name)]
    series = Series(config.grammar_of(split), seed, len(SPLITS) + SPLITS.index(split))
    pairs = [picture(series, index, size=size)[1:] for index in range(count)]
    return [words for words, _ in pairs], np.stack([pixels for _, pixels in pairs])


def _config(name: str) -> str:
    config = name.removeprefix("shapes/")
    names = [config.name for config in Shapes.BUILDER_CONFIGS]
    if config not in names:
        raise ValueError(f"no dataset {name!r}; known: {', '.join(names)}")
    return config


def _folder(name: str, data_dir: str | Path) -> Path:
    return Path(data_dir) / "shapes" / _config(name) / str(Shapes.VERSION)


def _open(name: str, data_dir: str | Path) -> Shapes:
    """A builder over a dataset that was found whole."""
    folder = _folder(name, data_dir)
    for file in FILES:
        _check_json(folder / file)
    builder = Shapes(config=_config(name), data_dir=data_dir)
    if builder.info.metadata["recipe"] != builder.builder_config.recipe():
        raise _unusable(folder, "it was painted by another recipe than today's")
    for split in SPLITS:
        info = builder.info.splits[split]
        for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
            _check_shard(Path(path), length)
    return builder


def _check_json(path: Path) -> None:
    if not path.is_file():
        raise _unusable(path.parent, f"{path.name} is missing")
    try:
        json.loads(path.read_text())
    except ValueError as error:
        raise _unusable(path.parent, f"{path.name} was cut short") from error


def _check_shard(path: Path, length: int) -> None:
    if not path.is_file():
        raise _unusable(path.parent, f"{path.name} is missing")
    try:
        reader = ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except RuntimeError as error:  # the index is at the end of the file
        raise _unusable(path.parent, f"{path.name} was cut short") from error
    if found != length:
        raise _unusable(path.parent, f"{path.name} has {found} pictures instead of {length}")


def _unusable(folder: Path, what: str) -> ValueError:
    return ValueError(
        f"unusable dataset {folder}: {what}; delete that folder and run `imagen data` again"
    )
