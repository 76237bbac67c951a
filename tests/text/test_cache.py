"""Encoding a dataset once: exact, in order, shard by shard, and never over another encoding."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.data.images import transforms
from imagen_jax.data.prepare import encode
from imagen_jax.data.prepare.encode import ProcessShare
from imagen_jax.data.sources import base
from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import TextDtype
from imagen_jax.data.store.store import Store
from imagen_jax.text import packing

COUNT, WIDTH, LENGTH = 10, 3, 5


class FakeSource:
    """Ten pictures of 16-pixel noise, five different captions."""

    skipped: ClassVar = {}

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, object]:
        self.reads += 1
        return base.make_example(png_of(index), (caption_of(index),))

    def key(self, index: int) -> str:
        return str(index)


class FakeEncoder:
    """One vector per word, cut to the length; the last caption first, as packing may have it."""

    identity, vocabulary, width, max_length = "0123", "4567", WIDTH, LENGTH
    clean, dtype = False, "float32"

    def __init__(self) -> None:
        self.captions: list[str] = []

    def plan(self, captions: Sequence[str]) -> packing.PackingPlan:
        self.captions += captions
        self._planned = list(captions)
        ids = [[1] * len(words(caption)) for caption in captions]
        return packing.plan_rows(ids, length=8, batch_rows=2)

    def run(self, plan: packing.PackingPlan) -> Iterator[tuple[int, np.ndarray]]:
        for index, caption in reversed(list(enumerate(self._planned))):
            yield index, encoding_of(caption)

    def cut_text(self, caption: str) -> str:
        return " ".join([*caption.split(), "</s>"][LENGTH:])


def words(caption: str) -> list[str]:
    return [*caption.split(), "</s>"][:LENGTH]


def png_of(index: int) -> bytes:
    rng = np.random.default_rng(index)
    return transforms.encode(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))


def caption_of(index: int) -> str:
    return " ".join(["word"] * (index % 5)) + f" {index % 5}"


def encoding_of(caption: str) -> np.ndarray:
    rng = np.random.default_rng(len(caption))
    return rng.standard_normal((len(words(caption)), WIDTH)).astype(np.float32)


def target(folder: Path, sizes: tuple[int, ...] = (16, 4), **changes) -> Store:
    made = encode.store_target(
        FakeEncoder(),
        FakeSource(),
        folder=folder,
        data=config.Data(dataset="fake/all", split="train"),
        text=config.Text(encoder="somewhere/t5", width=WIDTH, max_length=LENGTH),
        sizes=sizes,
    )
    return dataclasses.replace(made, **{"shard_records": 4} | changes)


def write(target: Store, **options) -> Store:
    written = encode.write_store(FakeSource(), FakeEncoder(), target, progress=False, **options)
    assert written.store is not None
    return written.store


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_path_has_one_folder_per_dataset_encoder_and_split() -> None:
    found = encode.store_path("data", dataset="shapes/full", split="train", encoder="t5_1_1_tiny")
    assert found == Path("data/encoded/shapes-full/t5_1_1_tiny/train")


def test_target_describes_source_and_encoder(tmp_path: Path) -> None:
    made = target(tmp_path)
    assert (made.encoder, made.identity, made.vocabulary) == ("t5", "0123", "4567")
    assert (made.sizes, made.count) == ((4, 16), COUNT)


@pytest.mark.parametrize(("field", "value"), [("width", 77), ("max_length", 77), ("clean", True)])
def test_target_refuses_an_encoder_that_the_config_does_not_describe(
    field: str, value: object
) -> None:
    text = config.Text(**{"encoder": "t5", "width": WIDTH, "max_length": LENGTH} | {field: value})
    with pytest.raises(ValueError, match=rf"text\.{field}={value}, but encoder 't5' has \w"):
        encode.store_target(
            FakeEncoder(), FakeSource(), folder=Path(), data=config.Data(), text=text, sizes=(4,)
        )


class Told(FakeSource):
    """The same pictures, each with a second caption that all share."""

    def __getitem__(self, index: int) -> dict[str, object]:
        return base.make_example(png_of(index), (caption_of(index), "noise"))


def test_every_caption_of_a_picture_is_kept_and_those_that_come_again_are_encoded_once(
    tmp_path: Path,
) -> None:
    encoder, made = FakeEncoder(), target(tmp_path / "s", shard_records=COUNT)
    found, counts = encode.write_store(Told(), encoder, made, progress=False)
    assert found is not None
    for index in range(COUNT):
        record = found.source()[index]
        assert record.captions == (caption_of(index), "noise")
        for caption, text in zip(record.captions, record.texts, strict=True):
            expected = records.round_encoding(encoding_of(caption), made.text_dtype)
            np.testing.assert_array_equal(text.values, expected.values)
    assert (counts.captions, counts.different) == (2 * COUNT, 5 + 1)
    assert sorted(encoder.captions) == sorted(["", "noise", *(caption_of(i) for i in range(5))])


@pytest.mark.parametrize("dtype", get_args(TextDtype))
def test_records_hold_the_source_in_order_and_its_encodings(
    tmp_path: Path, dtype: TextDtype
) -> None:
    source = write(target(tmp_path / "s", text_dtype=dtype)).source()
    assert len(source) == COUNT
    for index in range(COUNT):
        record = source[index]
        assert (record.key, record.captions) == (str(index), (caption_of(index),))
        expected = records.round_encoding(encoding_of(caption_of(index)), dtype)
        np.testing.assert_array_equal(record.texts[0].values, expected.values)
        np.testing.assert_array_equal(record.texts[0].array(), expected.array())
        assert record.images[16] == png_of(index)
        small = transforms.area_downsample(transforms.decode_image(png_of(index)), 4)
        np.testing.assert_array_equal(transforms.decode_image(record.images[4]), small)


def test_the_empty_caption_is_stored_once(tmp_path: Path) -> None:
    found = write(target(tmp_path / "s", text_dtype="float32")).empty()
    np.testing.assert_array_equal(found.array(), encoding_of(""))
    assert found.array().shape == (1, WIDTH)


def test_counts_tell_what_was_encoded_and_its_error(tmp_path: Path) -> None:
    counts = encode.write_store(
        FakeSource(), FakeEncoder(), target(tmp_path / "s", text_dtype="int8"), progress=False
    ).counts
    shards = [{caption_of(i) for i in part} for part in (range(4), range(4, 8), range(8, 10))]
    different = [caption for shard in shards for caption in shard]
    assert (counts.captions, counts.different) == (COUNT, len(different))
    assert counts.useful == sum(len(words(caption)) for caption in different)
    assert counts.computed >= counts.useful
    assert counts.cut == sum(len(caption.split()) + 1 > LENGTH for caption in different) > 0
    texts = [encoding_of(caption) for caption in different]
    off = [records.round_encoding(text, "int8").array() - text for text in texts]
    expected = np.sqrt(sum(np.sum(x**2) for x in off) / sum(np.sum(x**2) for x in texts))
    assert counts.error == pytest.approx(expected, rel=1e-5)
    assert 1e-3 < counts.error < 1e-2


def test_a_caption_that_comes_again_in_a_shard_is_encoded_once(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    encode.write_store(
        FakeSource(), encoder, target(tmp_path / "s", shard_records=10), progress=False
    )
    assert sorted(encoder.captions) == sorted(["", *(caption_of(i) for i in range(5))])


class Interrupted(FakeEncoder):
    """Stopped when it is to encode once too often."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def run(self, plan: packing.PackingPlan) -> Iterator[tuple[int, np.ndarray]]:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        yield from super().run(plan)


@pytest.mark.parametrize("after", range(4))
def test_interrupted_and_resumed_it_gives_the_same_bytes(tmp_path: Path, after: int) -> None:
    write(target(tmp_path / "whole"))
    wanted = target(tmp_path / "resumed")
    with pytest.raises(KeyboardInterrupt):
        encode.write_store(FakeSource(), Interrupted(after), wanted, progress=False)
    encoder = FakeEncoder()
    assert encode.write_store(FakeSource(), encoder, wanted, progress=False).store is not None
    whole = [c for part in (range(4), range(4, 8), range(8, 10)) for c in map(caption_of, part)]
    left = whole[4 * max(after - 1, 0) :]  # the first that is encoded is the empty caption
    assert sorted(encoder.captions) == sorted(["", *left])
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_processes_give_the_same_bytes_as_one(tmp_path: Path, order: tuple) -> None:
    write(target(tmp_path / "one"))
    wanted = target(tmp_path / "two")
    first, second = (
        encode.write_store(
            FakeSource(), FakeEncoder(), wanted, share=ProcessShare(process, 2), progress=False
        )
        for process in order
    )
    assert first.store is None  # the last one completes it
    assert second.store == store.open_store(wanted.folder)
    assert first.counts.captions + second.counts.captions == COUNT
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_complete_store_is_reused_without_work(tmp_path: Path) -> None:
    first = write(target(tmp_path / "s"))
    source, encoder = FakeSource(), FakeEncoder()
    for changes in ({"sizes": (4, 16)}, {"sizes": (16,)}, {"shard_records": 3}):
        again = encode.write_store(
            source, encoder, target(tmp_path / "s", **changes), progress=False
        )
        assert again.store == first
    assert source.reads == 0
    assert not encoder.captions


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"identity": "4567"}, "identity '0123' there, '4567' wanted"),
        ({"vocabulary": "0000"}, "vocabulary '4567' there, '0000' wanted"),
        ({"encoder": "t5_xl"}, "encoder 't5' there, 't5_xl' wanted"),
        ({"max_length": 9}, "max_length 5 there, 9 wanted"),
        ({"clean": True}, "clean False there, True wanted"),
        ({"computed_in": "bfloat16"}, "computed_in 'float32' there, 'bfloat16' wanted"),
        ({"text_dtype": "float32"}, "text_dtype 'bfloat16' there, 'float32' wanted"),
        ({"sizes": (4, 8)}, r"sizes \(4, 16\) there, \(4, 8\) wanted"),
        ({"dataset": "other"}, "dataset 'fake/all' there, 'other' wanted"),
        ({"count": 9}, "count 10 there, 9 wanted"),
    ],
)
def test_another_encoding_is_refused_and_kept(tmp_path: Path, change: dict, sentence: str) -> None:
    first = write(target(tmp_path / "s"))
    with pytest.raises(ValueError, match=sentence):
        write(dataclasses.replace(first, files=(), **change))
    assert store.open_store(first.folder) == first


def test_picture_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fake/all 0: .*cannot become .*\[5, 16\]"):
        write(target(tmp_path / "s", sizes=(5, 16)))
