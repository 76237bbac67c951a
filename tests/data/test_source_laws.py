"""Laws that every source of captioned images obeys."""

import io
import pickle
import random
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jpegs import photo

from imagen_jax.data.sources import addresses, base
from imagen_jax.data.sources.base import Source
from imagen_jax.data.synthetic.shapes import dataset

COUNT = 6  # examples; the third has no caption
FORMS = {
    "tars": "tars:{there}/x.tar",
    "folder": "folder:{there}/files",
    "table": "folder:{there}/rows",
    "parquet": "parquet:{there}/x.parquet",
    "mixture": "mixture:{there}/mixture.txt",
    "embedded": "shapes/tiny?split=validation",
    "tfds": "tfds:shapes/tiny?split=validation",
}
LEAVE_OUT = {
    "tars": 1,
    "folder": 1,
    "table": 2,
    "parquet": 1,
    "mixture": 2,
}  # of a table its missing file too


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with data of every form."""
    folder = tmp_path_factory.mktemp("sources")
    images = [photo((24, 16 + n), seed=n) for n in range(COUNT)]
    texts = [f"№ {n}" if n != 2 else None for n in range(COUNT)]
    for name in ("files", "rows"):
        (folder / name).mkdir()
        for n, image in enumerate(images):
            (folder / name / f"{n}.jpg").write_bytes(image)
    with tarfile.open(folder / "x.tar", "w") as tar:
        for n, (image, text) in enumerate(zip(images, texts, strict=True)):
            caption = {} if text is None else {f"{n}.txt": text.encode()}
            for name, content in ({f"{n}.jpg": image} | caption).items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                (folder / "files" / name).write_bytes(content)
    rows = [f'{{"file_name": "{n}.jpg", "text": "№ {n}"}}' for n in range(COUNT) if n != 2]
    missing = '{"file_name": "gone.jpg", "text": "gone"}'
    (folder / "rows" / "metadata.jsonl").write_text("\n".join([*rows, missing]))
    pq.write_table(pa.table({"image": images, "text": texts}), folder / "x.parquet")
    listed = f"tars:{folder}/x.tar\nfolder:{folder}/files?weight=2\n"
    (folder / "mixture.txt").write_text(listed)
    dataset.build_shapes("shapes/tiny", folder / "data", workers=1)
    return folder


@pytest.fixture(params=[*FORMS, "first"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def open_it(form: str, there: Path) -> Callable[[], Source]:
    """What opens the source of a form, each time another one."""

    def open_it() -> Source:
        if form == "first":
            address = FORMS["embedded"]
            whole = addresses.open_source(addresses.parse_address(address), there / "data")
            return base.First(whole, COUNT)
        address = addresses.parse_address(FORMS[form].format(there=there))
        return addresses.open_source(address, there / "data")

    return open_it


@pytest.fixture
def source(open_it: Callable[[], Source]) -> Source:
    return open_it()


def read(source: Source) -> list[dict]:
    return [source[index] for index in range(len(source))]


def keys(source: Source) -> list[str]:
    return [source.key(index) for index in range(len(source))]


def totals(source: Source) -> dict[str, int]:
    return {reason: names.total for reason, names in source.skipped.items()}


def test_it_is_a_source_of_encoded_images_and_captions(source: Source) -> None:
    assert isinstance(source, Source)
    for example in read(source):
        assert isinstance(example["image"], bytes)
        assert example["captions"]
        assert all(isinstance(caption, str) for caption in example["captions"])
        assert example["caption"] == example["captions"][0]


def test_keys_are_printable_and_name_one_example_each(source: Source, form: str) -> None:
    found = keys(source)
    assert len(found) == len(source) > 0
    assert all(key.isprintable() for key in found)
    if form != "mixture":  # a source may come several times there
        assert len(set(found)) == len(found)


def test_the_same_example_is_there_at_any_time(source: Source) -> None:
    in_order = read(source)
    for index in random.Random(0).choices(range(len(source)), k=40):
        assert source[index] == in_order[index]
    by_iteration = [example for example, _ in zip(source, range(len(source)), strict=True)]
    assert by_iteration == in_order


def test_threads_share_it_and_processes_copy_it(source: Source) -> None:
    in_order = read(source)
    copy = pickle.loads(pickle.dumps(source))
    order = random.Random(0).choices(range(len(source)), k=200)
    for one in (source, copy):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i, one=one: one[i], order))
        assert found == [in_order[i] for i in order]
    assert keys(copy) == keys(source)
    assert copy.skipped == source.skipped
    assert totals(copy) == totals(source)


def test_nothing_is_left_to_chance(source: Source, open_it: Callable[[], Source]) -> None:
    again = open_it()
    assert keys(again) == keys(source)
    assert read(again) == read(source)
    assert again.skipped == source.skipped


def test_what_is_left_out_is_counted_and_named(source: Source, form: str) -> None:
    assert sum(totals(source).values()) == LEAVE_OUT.get(form, 0)
    for names in source.skipped.values():
        assert 0 < len(names) <= names.total
        assert all(name.isprintable() for name in names)


@pytest.mark.parametrize("place", ["behind the end", "negative"])
def test_an_example_that_is_not_there_is_refused(source: Source, place: str) -> None:
    wrong = {"behind the end": len(source), "negative": -1}[place]
    with pytest.raises(IndexError, match=rf"example {wrong} of {len(source)}$"):
        source[wrong]
