"""A source of pictures of any size to a store: what is kept, what is skipped and why."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from jpegs import photo

from imagen_jax.config import Filters, Framing
from imagen_jax.data.images import transforms
from imagen_jax.data.prepare import images
from imagen_jax.data.prepare.images import PreparedImage
from imagen_jax.data.sources import base
from imagen_jax.data.store import records, skipped, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.skipped import Skipped, Total
from imagen_jax.data.store.store import Store
from imagen_jax.io import errors
from imagen_jax.io.errors import CorruptDataError

COUNT, WIDTH = 23, 3
SMALL, LONG, WORDY, BROKEN, LOST = (3,), (5, 12), (8,), (9, 20), (14,)
DROPPED = {*SMALL, *LONG, *WORDY, *BROKEN, *LOST}
REASONS = {
    "smaller than 16 pixels": SMALL,
    "longer than 3.0 times its short side": LONG,
    "caption of more than 30 characters": WORDY,
    "unreadable": (*BROKEN, *LOST),
}


class Source:
    """JPEGs of all sizes, some of which have to go."""

    skipped: ClassVar[dict] = {}

    def key(self, index: int) -> str:
        return str(index)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict:
        if index in LOST:
            raise CorruptDataError(f"example {index} is gone")
        size = (64, 10) if index in SMALL else (80, 20) if index in LONG else (30 + index, 24)
        image = photo(size, seed=index)
        image = image[: len(image) // 2] if index in BROKEN else image
        wordy, plain = "word " * 9, f"number {index}"
        return base.make_example(image, (wordy,) if index in WORDY else (wordy, plain))


def target(folder: Path, **changes) -> Store:
    made = Store(
        folder=folder,
        dataset="photos",
        split="train",
        count=COUNT,
        sizes=(8, 16),
        encoder="t5",
        identity="0",
        vocabulary="1",
        width=WIDTH,
        max_length=4,
        shard_records=5,
        framing=Framing(crop="random"),
        filters=Filters(max_aspect=3.0, max_caption_chars=30),
    )
    return dataclasses.replace(made, **changes)


def record(picture: PreparedImage) -> Record:
    text = records.round_encoding(np.ones((1, WIDTH), np.float32), "bfloat16")
    texts = (text,) * len(picture.captions)
    return Record(key=picture.key, captions=picture.captions, images=picture.images, texts=texts)


def write(target: Store, numbers: list[int] | None = None) -> Store | None:
    missing = store.begin_store(target)
    todo = missing if numbers is None else [n for n in numbers if n in missing]
    for number, pictures, lacks in images.prepare_shards(Source(), target, todo):
        store.write_shard(target, number, [record(one) for one in pictures], lacks=lacks)
    text = np.ones((1, WIDTH), np.float32)
    store.write_empty(target, records.round_encoding(text, target.text_dtype))
    return store.finish_store(target)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def written(tmp_path: Path) -> Store:
    made = write(target(tmp_path / "whole"))
    assert made is not None
    return made


def test_the_others_keep_their_order_their_keys_and_their_windows(written: Store) -> None:
    kept = [index for index in range(COUNT) if index not in DROPPED]
    assert (written.count, written.examples) == (len(kept), COUNT)
    source = store.open_store(written.folder).source()
    assert len(source) == len(kept)
    for place, index in enumerate(kept):
        found = source[place]
        assert (found.key, found.captions) == (str(index), (f"number {index}",))
        image = photo((30 + index, 24), seed=index)
        assert found.images == transforms.pyramid(
            image, (8, 16), framing=Framing(crop="random"), index=index
        )


def test_what_is_skipped_is_counted_and_listed_with_its_reason(written: Store) -> None:
    listed = skipped.read_skipped(written.folder)
    assert [one.example for one in listed] == sorted(DROPPED)
    for reason, indices in REASONS.items():
        assert [one.example for one in listed if one.reason == reason] == sorted(indices)
    assert written.skipped == tuple(Total(r, len(n)) for r, n in sorted(REASONS.items()))
    assert {one.key for one in listed} == {str(index) for index in DROPPED}
    details = {one.example: one.detail for one in listed if one.detail}
    assert details.keys() == {*BROKEN, *LOST}
    assert details[14] == "example 14 is gone"
    assert "no complete image" in details[9]
    assert skipped.summarise_skipped(written.skipped).startswith(
        "3 unreadable, 2 longer than 3.0 times"
    )


def test_a_finished_store_opens_as_it_was_made(written: Store) -> None:
    assert store.open_store(written.folder) == written
    names = set(contents(written.folder))
    assert names == {store.INDEX, skipped.FILE, *(file.name for file in written.files)}


def test_a_store_of_before_there_was_framing_opens(written: Store) -> None:
    index = json.loads((written.folder / store.INDEX).read_text())
    for name in ("framing", "filters", "skipped"):
        del index[name]
    (written.folder / store.INDEX).write_text(json.dumps(index))
    opened = store.open_store(written.folder)
    assert (opened.framing, opened.skipped, opened.count) == (None, (), written.count)


def test_each_record_is_found_in_its_file(written: Store) -> None:
    source = written.source()
    for place in range(written.count):
        example = int(source[place].key.removeprefix("train-"))
        assert written.shard_of(place) == written.shard(example // 5)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3]])
@pytest.mark.parametrize("first", range(5))
def test_in_parts_and_in_any_order_it_has_the_same_bytes(
    tmp_path: Path, written: Store, order: list[int], first: int
) -> None:
    wanted = target(tmp_path / "parts")
    assert write(wanted, order[:first]) is None
    if first:  # killed between the list of what a shard lacks and the shard
        wanted.shard(order[first - 1]).unlink()
    assert write(wanted, order) == dataclasses.replace(written, folder=wanted.folder)
    assert contents(wanted.folder) == contents(written.folder)


def test_a_process_that_comes_second_to_the_end_finds_it_done(
    tmp_path: Path, written: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = target(tmp_path / "two")
    gather = skipped.gather_skipped

    def late(*arguments) -> object:
        monkeypatch.setattr(skipped, "gather_skipped", gather)
        store.finish_store(wanted)  # by another process, which takes the lists away
        skipped.write_skipped(wanted.skipped_in(3), [])  # where both wrote all shards
        return gather(*arguments)

    monkeypatch.setattr(skipped, "gather_skipped", late)
    assert write(wanted) == dataclasses.replace(written, folder=wanted.folder)
    assert contents(wanted.folder) == contents(written.folder)


def test_a_shard_may_lose_all_of_its_examples(tmp_path: Path) -> None:
    wanted = target(tmp_path / "s", shard_records=1)
    made = write(wanted)
    assert made is not None
    assert [file.count for file in made.files[:-1]] == [int(i not in DROPPED) for i in range(COUNT)]
    source = store.open_store(wanted.folder).source()
    assert [source[n].captions for n in range(3)] == [(f"number {n}",) for n in range(3)]
    assert source[made.count - 1].captions == (f"number {COUNT - 1}",)


def test_a_store_without_any_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"all of photos train was skipped: 19 smaller than 999"):
        write(target(tmp_path / "s", filters=Filters(min_side=999)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"framing": Framing()}, "framing Framing.*'random'.* there, .*'centre'.* wanted"),
        ({"framing": None}, "framing Framing.* there, None wanted"),
        (
            {"filters": Filters(min_side=20)},
            "filters .*max_aspect=3.0.* there, .*min_side=20.* wan",
        ),
        ({"count": COUNT + 1}, r"count 23 there, 24 wanted"),
    ],
)
def test_another_framing_is_refused(
    tmp_path: Path, written: Store, change: dict, sentence: str
) -> None:
    store.refuse_other(written, target(written.folder))
    with pytest.raises(ValueError, match=sentence):
        store.refuse_other(written, target(written.folder, **change))
    wanted = target(tmp_path / "begun")
    write(wanted, [1])
    with pytest.raises(ValueError, match="holds another encoding"):
        store.begin_store(target(wanted.folder, **change))


def test_without_framing_a_picture_that_does_not_fit_stops_it(tmp_path: Path) -> None:
    strict = target(tmp_path / "s", framing=None)
    with pytest.raises(ValueError, match=r"photos 0: .* 30x24 pixels cannot become"):
        images.prepare_image(Source(), strict, 0)
    with pytest.raises(CorruptDataError, match="example 14 is gone"):
        images.prepare_image(Source(), strict, 14)


def test_five_percent_damaged_at_random_are_counted_right(
    tmp_path: Path, write_store: Callable
) -> None:
    count, rng = 400, np.random.default_rng(0)
    broken = set(rng.choice(count, count // 20, replace=False).tolist())

    class Damaging(Source):
        def __getitem__(self, index: int) -> dict:
            image = photo((40, 24), seed=index)
            at = int(rng.integers(4, 200))
            return base.make_example(image[:at] if index in broken else image, ("one",))

    wanted = target(tmp_path / "s", count=count, shard_records=90)
    found = list(images.prepare_shards(Damaging(), wanted, range(5)))
    lacks = [one for _, _, lacking in found for one in lacking]
    assert {one.example for one in lacks} == broken
    assert Counter(one.reason for one in lacks) == {errors.UNREADABLE: len(broken)}
    assert sum(len(pictures) for _, pictures, _ in found) == count - len(broken)
    assert all(isinstance(one, Skipped) for one in lacks)
