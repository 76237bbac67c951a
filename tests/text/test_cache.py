"""Encoding a dataset once: exact, in order, each caption once, and never over another encoding."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.data import records, transforms
from imagen_jax.data.records import Store
from imagen_jax.text import cache

COUNT, WIDTH, LENGTH = 10, 3, 5


class FakeSource:
    """Ten pictures of 16-pixel noise, five different captions."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, object]:
        self.reads += 1
        return {"image": png_of(index), "caption": caption_of(index)}


class FakeEncoder:
    """One vector per word, cut to the length; garbage in the padding, which must not be stored."""

    identity, width, max_length = "0123", WIDTH, LENGTH

    def __init__(self) -> None:
        self.captions: list[str] = []

    def encode(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        self.captions += captions
        text = np.full((len(captions), LENGTH, WIDTH), np.nan, np.float32)
        mask = np.zeros((len(captions), LENGTH), bool)
        for row, caption in enumerate(captions):
            words = encoding_of(caption)
            text[row, : len(words)], mask[row, : len(words)] = words, True
        return text, mask


def png_of(index: int) -> bytes:
    rng = np.random.default_rng(index)
    return transforms.encode(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))


def caption_of(index: int) -> str:
    return " ".join(["word"] * (index % 5)) + f" {index % 5}"


def encoding_of(caption: str) -> np.ndarray:
    words = caption.split()[:LENGTH]
    rng = np.random.default_rng(len(caption))
    return rng.standard_normal((len(words), WIDTH)).astype(np.float32)


def target(folder: Path, text_dtype: records.TextDtype = "bfloat16", sizes=(16, 4)) -> Store:
    return cache.target(
        FakeEncoder(),
        data_dir=folder,
        data=config.Data(dataset="fake/all", split="train"),
        text=config.Text(encoder="somewhere/t5", width=WIDTH, max_length=LENGTH),
        sizes=sizes,
        dtype=text_dtype,
    )


def write(target: Store) -> Store:
    return cache.write(FakeSource(), FakeEncoder(), target, progress=False)


def test_path_has_one_folder_per_dataset_encoder_and_split() -> None:
    found = cache.path("data", dataset="shapes/full", split="train", encoder="t5_1_1_tiny")
    assert found == Path("data/encoded/shapes-full/t5_1_1_tiny/train")


def test_target_lies_at_that_path_and_describes_the_encoder(tmp_path: Path) -> None:
    made = target(tmp_path)
    assert made.folder == tmp_path / "encoded" / "fake-all" / "t5" / "train"
    assert (made.encoder, made.identity, made.sizes) == ("t5", "0123", (4, 16))


@pytest.mark.parametrize("field", ["width", "max_length"])
def test_target_refuses_an_encoder_that_the_config_does_not_describe(field: str) -> None:
    text = config.Text(**{"encoder": "t5", "width": WIDTH, "max_length": LENGTH} | {field: 77})
    with pytest.raises(ValueError, match=rf"text\.{field}=77, but encoder 't5' has \d"):
        cache.target(FakeEncoder(), data_dir=".", data=config.Data(), text=text, sizes=(4,))


@pytest.mark.parametrize("text_dtype", get_args(records.TextDtype))
def test_records_hold_the_source_in_order_and_its_encodings_exactly(
    tmp_path: Path, text_dtype: records.TextDtype
) -> None:
    source = write(target(tmp_path, text_dtype)).source()
    assert len(source) == COUNT
    for index in range(COUNT):
        record = source[index]
        assert (record.key, record.caption) == (f"train-{index:07d}", caption_of(index))
        expected = encoding_of(caption_of(index)).astype(records.DTYPES[text_dtype])
        assert record.text.dtype == expected.dtype
        np.testing.assert_array_equal(record.text, expected)  # without the padding's NaNs
        assert record.images[16] == png_of(index)
        small = transforms.area_downsample(transforms.decode(png_of(index)), 4)
        np.testing.assert_array_equal(transforms.decode(record.images[4]), small)


def test_small_chunks_give_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(target(tmp_path / "whole")).source()
    monkeypatch.setattr(cache, "CHUNK", 3)
    chunked = write(target(tmp_path / "chunked")).source()
    assert [records.pack(whole[i]) for i in range(COUNT)] == [
        records.pack(chunked[i]) for i in range(COUNT)
    ]


@pytest.mark.parametrize(("memo", "times"), [(2**20, 1), (-1, 2)])
def test_a_caption_is_encoded_once_while_memory_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memo: int, times: int
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 5)
    monkeypatch.setattr(cache, "MEMO_BYTES", memo)
    encoder = FakeEncoder()
    store = cache.write(FakeSource(), encoder, target(tmp_path), progress=False)
    assert sorted(encoder.captions) == sorted(times * [caption_of(i) for i in range(5)])
    assert store.count == COUNT


def test_complete_store_is_reused_without_work(tmp_path: Path) -> None:
    first = write(target(tmp_path))
    source, encoder = FakeSource(), FakeEncoder()
    for sizes in ((4, 16), (16,)):
        again = cache.write(source, encoder, target(tmp_path, sizes=sizes), progress=False)
        assert again == first
    assert source.reads == 0
    assert not encoder.captions


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"identity": "4567"}, "identity '0123' there, '4567' wanted"),
        ({"encoder": "t5_xl"}, "encoder 't5' there, 't5_xl' wanted"),
        ({"max_length": 9}, "max_length 5 there, 9 wanted"),
        ({"text_dtype": "float32"}, "text_dtype 'bfloat16' there, 'float32' wanted"),
        ({"sizes": (4, 8)}, r"sizes \(4, 16\) there, \(4, 8\) wanted"),
        ({"dataset": "other"}, "dataset 'fake/all' there, 'other' wanted"),
    ],
)
def test_another_encoding_is_refused_and_kept(tmp_path: Path, change: dict, sentence: str) -> None:
    first = write(target(tmp_path))
    with pytest.raises(ValueError, match=sentence):
        write(dataclasses.replace(first, **change))
    assert records.open(first.folder) == first


def test_encoding_of_fewer_pictures_is_refused(tmp_path: Path) -> None:
    records.write(made := target(tmp_path), [write(target(tmp_path / "all")).source()[0]])
    with pytest.raises(ValueError, match="count 1 there, 10 wanted"):
        write(made)


def test_interrupted_encoding_is_begun_anew(tmp_path: Path) -> None:
    class Interrupted(FakeEncoder):
        def encode(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.write(FakeSource(), Interrupted(), target(tmp_path), progress=False)
    assert write(target(tmp_path)).count == COUNT


def test_picture_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fake/all train-0000000: .*cannot become .*\[5, 16\]"):
        write(target(tmp_path, sizes=(5, 16)))
