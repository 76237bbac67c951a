"""Records of TFDS datasets that strangers made: compressed to nothing, or full of values."""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from imagen_jax.data.sources import tfds_records
from imagen_jax.data.sources.base import Address
from imagen_jax.data.sources.tfds import open_tfds
from imagen_jax.data.synthetic.tfds_builder import TfdsSource
from imagen_jax.io.errors import CorruptDataError


def _field(number: int, data: bytes) -> bytes:
    size, spelled = len(data), b""
    while size > 127:
        spelled, size = spelled + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + spelled + bytes([size]) + data


def _example(**features: Iterable[bytes]) -> bytes:
    """TensorFlow's Example of features of bytes."""
    entries = [
        _field(1, _field(1, name.encode()) + _field(2, _field(1, b"".join(map(_one, values)))))
        for name, values in features.items()
    ]
    return _field(1, b"".join(entries))


def _one(value: bytes) -> bytes:
    return _field(1, value)


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


PNG = _png()
HONEST = _example(image=[PNG], caption=[b"a"], other=[b"b"])


@pytest.fixture
def dataset(tmp_path: Path):
    """Write a dataset of these records, as TFDS does but for their compression."""

    def write(records: list[bytes], options: str = "zstd,group_size:1") -> Path:
        folder = tmp_path / "own" / "1.0.0"
        folder.mkdir(parents=True)
        texts = tfds.features.Text()
        tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(),
                "caption": texts,
                "other": tfds.features.Sequence(texts),
            }
        ).save_config(str(folder))
        split = {
            "name": "train",
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "shardLengths": [str(len(records))],
        }
        about = {"name": "own", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
        (folder / "dataset_info.json").write_text(json.dumps(about))
        writer = ArrayRecordWriter(str(folder / "own-train.array_record-00000-of-00001"), options)
        for record in records:
            writer.write(record)
        writer.close()
        return tmp_path

    return write


@pytest.mark.parametrize(
    "options",
    ["zstd", "brotli", "snappy", "uncompressed", "zstd,group_size:4", "pad_to_block_boundary:true"],
)
def test_compressed_records_are_read(dataset, options: str) -> None:
    found = open_tfds(Address("tfds:own"), dataset([HONEST] * 9, options))
    assert [found[n]["caption"] for n in (8, 0, 5)] == ["a"] * 3
    assert found[7]["image"] == PNG


def test_a_chunk_that_unpacks_to_more_than_a_file_may_have_is_left_out(
    dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEN_MAX_FILE_BYTES", str(1 << 20))
    bomb = _example(image=[PNG + bytes(2 << 20)], caption=[b"a"])
    found = open_tfds(Address("tfds:own"), dataset([HONEST, bomb]))
    assert found[0]["caption"] == "a"
    says = r"example 1 of tfds:own lies in a chunk that has, unpacked, 2,.* set IMAGEN_MAX_FILE"
    with pytest.raises(CorruptDataError, match=says):
        found[1]


def test_a_footer_that_does_not_unpack_is_damage(tmp_path: Path) -> None:
    packed = bytes([9]) + b"no such data"
    with pytest.raises(CorruptDataError, match=r"the footer of a\.array_record can't be unpacked"):
        tfds_records._decompressed(memoryview(packed), "zstd", tmp_path / "a.array_record")


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ({"caption": [b"a" * (1 << 21)]}, "its texts have 2,097,.* bytes, more than 1,048,576"),
        ({"caption": [b""] * (1 << 20)}, "its texts have 2,097,.* bytes, more than 1,048,576"),
        ({"image": [PNG] * 2000}, "image has more than 1,000 values"),
        ({f"x{n}": [b""] for n in range(10_001)}, "it has more than 10,000 features"),
    ],
)
def test_a_record_of_very_many_values_is_left_out(dataset, features: dict, says: str) -> None:
    whole = {"image": [PNG], "caption": [b"a"], "other": [b"b"]} | features
    found = open_tfds(Address("tfds:own"), dataset([_example(**whole)]))
    with pytest.raises(CorruptDataError, match=rf"example 0 of tfds:own is damaged .*{says}"):
        found[0]


def test_features_that_nothing_wants_are_not_parsed(
    dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = _example(image=[PNG], caption=[b"a"], other=[b""] * (1 << 20))
    found = open_tfds(Address("tfds:own"), dataset([record]))
    seen: list[int] = []
    parse = found.features.deserialize_example_np
    monkeypatch.setattr(
        found.features,
        "deserialize_example_np",
        lambda kept, **options: seen.append(len(kept)) or parse(kept, **options),
    )
    assert found[0]["caption"] == "a"
    assert seen[0] < 1000


@pytest.mark.parametrize(
    "record", [b"\xff" * 99, b"\x80" * 20, _field(1, _field(1, _field(1, b"image"))), HONEST[:-3]]
)
def test_a_record_that_is_no_example_is_left_out(dataset, record: bytes) -> None:
    found = open_tfds(Address("tfds:own"), dataset([record]))
    with pytest.raises(CorruptDataError, match="example 0 of tfds:own is damaged"):
        found[0]


def test_embedded_datasets_hold_records_to_the_same(
    dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEN_MAX_FILE_BYTES", str(3 << 20))
    records = [
        HONEST,
        _example(image=[PNG + bytes(4 << 20)], caption=[b"a"], other=[b"b"]),
        _example(image=[PNG], caption=[b"a"], other=[b""] * (1 << 20)),
    ]
    found = open_tfds(Address("tfds:own"), dataset(records))
    texts = tfds.features.Text()
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "caption": texts, "other": tfds.features.Sequence(texts)}
    )
    source = TfdsSource(found.records, features, found.shards, "train")
    assert source[0] == {"image": PNG, "caption": "a", "captions": ("a",), "other": ("b",)}
    with pytest.raises(CorruptDataError, match="example 1 of train lies in a chunk that has, unpa"):
        source[1]
    with pytest.raises(CorruptDataError, match=r"example 2 of train is damaged .*its texts have"):
        source[2]


def test_a_dataset_of_parquet_is_refused(dataset) -> None:
    """TFDS would open it in this process, which Parquet's library may end."""
    place = dataset([HONEST])
    about = place / "own" / "1.0.0" / "dataset_info.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"fileFormat": "parquet"}))
    shard = next(about.parent.glob("*.array_record-*"))
    shard.rename(str(shard).replace("array_record", "parquet"))
    with pytest.raises(ValueError, match="is stored as parquet, and array_record alone is read"):
        open_tfds(Address("tfds:own"), place)
