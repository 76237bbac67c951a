"""Sources: what TFDS prepared is read without TensorFlow; what is not there is named."""

import io
import json
import pickle
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from imagen_jax.data.sources import addresses, base
from imagen_jax.data.sources.base import Address
from imagen_jax.data.sources.tfds import Prepared, _check_shards
from imagen_jax.data.sources.tfds_records import Shards
from imagen_jax.data.synthetic.shapes import dataset
from imagen_jax.io.errors import CorruptDataError

SIDE, COUNT = 8, 5
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"  # Pillow runs a program for it


class Photographs(tfds.core.GeneratorBasedBuilder):
    """Somebody's dataset, with names of its own."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "photo": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                "alt": tfds.features.Text(),
                "label": tfds.features.Scalar(np.int32),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: object) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(COUNT):
            yield index, {"photo": io.BytesIO(png_of(index)), "alt": f"№ {index}", "label": index}


class Captions(tfds.core.GeneratorBasedBuilder):
    """Several captions to a picture, with features in features, as coco_captions has them.

    Its other images are of a kind that must not be decoded.
    """

    VERSION = tfds.core.Version("1.1.0")

    def _info(self) -> tfds.core.DatasetInfo:
        captions = {"id": np.int64, "text": tfds.features.Text()}
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="png"),
                "image/filename": tfds.features.Text(),
                "captions": tfds.features.Sequence(captions),
                "words": tfds.features.Sequence(tfds.features.Text()),
                "about": {"title": tfds.features.Text(), "year": np.int32},
                "masks": tfds.features.Sequence(
                    {"mask": tfds.features.Image(encoding_format="png")}
                ),
                "mask": tfds.features.Image(encoding_format="png"),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: object) -> dict:
        return {"val": self._generate_examples()}

    def _generate_examples(self):
        for index in range(COUNT):
            captions = [{"id": n, "text": text} for n, text in enumerate(captions_of(index))]
            yield (
                index,
                {
                    "image": io.BytesIO(png_of(index)),
                    "image/filename": f"{index}.png",
                    "captions": captions,
                    "words": captions_of(index),
                    "about": {"title": f"title {index}", "year": 2000 + index},
                    "masks": [{"mask": io.BytesIO(POSTSCRIPT)}] * index,
                    "mask": io.BytesIO(POSTSCRIPT),
                },
            )


def captions_of(index: int) -> list[str]:
    """None, one, two ...; of the last one are blank."""
    return [f"№ {index}.{n}" for n in range(index)] + [" "] * (index == COUNT - 1)


def png_of(index: int) -> bytes:
    pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    Photographs(data_dir=folder, file_format="array_record").download_and_prepare(
        download_dir=folder / "downloads"
    )
    Captions(data_dir=folder, file_format="array_record").download_and_prepare(
        download_dir=folder / "downloads"
    )
    return folder


def test_an_address_has_defaults_and_names_features() -> None:
    assert addresses.parse_address("shapes/full") == Address(
        "shapes/full", "train", "image", "caption"
    )
    given = addresses.parse_address(
        "tfds:coco_captions/2014?split=val&image=photo&text=alt%20text&weight=.5"
    )
    assert given == Address("tfds:coco_captions/2014", "val", "photo", "alt text", 0.5)
    assert addresses.parse_address("tars:/a/{00..12}.tar").dataset == "tars:/a/{00..12}.tar"
    for form, text in {"tars": "", "folder": "", "parquet": "text", "tfds": "caption"}.items():
        assert addresses.parse_address(f"{form}:x").text == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("coco", "no data source 'coco': no file or folder here has that name; give a folder"),
        ("gs://b/x", "no data source 'gs://b/x': say what is in the bucket: tars:gs://b/x, fold"),
        ("tfds:", "no data source 'tfds:'"),
        ("tars:", "no data source 'tars:'"),
        ("tfds:coco?spilt=val", "unknown 'spilt'"),
        ("shapes/full?text=caption", "unknown 'text'"),
        ("tars:x?image=jpg", "unknown 'image'"),
        ("folder:x?split=val", "unknown 'split'"),
        ("mixture:x?text=y", "unknown 'text'"),
        ("folder:x?weight=", "weight='' is no number"),
    ],
)
def test_what_is_no_address_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        addresses.parse_address(text)


def test_a_prepared_dataset_is_read_by_its_own_names(data_dir: Path) -> None:
    source = addresses.open_source(
        addresses.parse_address("tfds:photographs?image=photo&text=alt"), data_dir
    )
    assert len(source) == COUNT
    for index in (3, 0, 4):
        words = f"№ {index}"
        assert source[index] == {"image": png_of(index), "caption": words, "captions": (words,)}
    assert source.key(3) == "train-0000003"
    assert isinstance(source, base.Source)
    assert source.skipped == {}


@pytest.mark.parametrize("text", ["captions/text", "words"])
def test_several_captions_come_in_order(data_dir: Path, text: str) -> None:
    source = addresses.open_source(
        addresses.parse_address(f"tfds:captions?split=val&text={text}"), data_dir
    )
    for index in range(COUNT):
        wanted = tuple(c for c in captions_of(index) if c != " ")
        example = source[index]
        assert example["captions"] == (wanted or ("",))
        assert example["caption"] == example["captions"][0]
        assert example["image"] == png_of(index)


@pytest.mark.parametrize(
    ("text", "wanted"), [("about/title", "title 3"), ("image/filename", "3.png")]
)
def test_a_text_may_be_a_part_or_have_a_slash(data_dir: Path, text: str, wanted: str) -> None:
    source = addresses.open_source(
        addresses.parse_address(f"tfds:captions?split=val&text={text}"), data_dir
    )
    assert source[3]["captions"] == (wanted,)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("tfds:nothing", FileNotFoundError, "no TFDS dataset 'nothing' under .*array_record"),
        ("tfds:photographs?split=val", ValueError, "no split 'val' under .*; it has train"),
        ("tfds:photographs", ValueError, "no feature 'image'; it has .*photo"),
        ("tfds:photographs?image=photo&text=no", ValueError, "no feature 'no'; it has .*alt"),
        ("tfds:captions?split=val&text=captions", ValueError, "no feature 'captions'; it has .*"),
        ("tfds:captions?split=val&text=captions/no", ValueError, "it has .*captions/text, image"),
    ],
)
def test_what_is_not_there_is_named(data_dir: Path, text: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        addresses.open_source(addresses.parse_address(text), data_dir)


class Undecoded(Prepared):
    """Records that need no decoding."""

    def _parse(self, raw: bytes) -> Any:
        return self.features[int(raw)]


class NoShards(Shards):
    """No files."""

    def unpacked_size(self, index: int) -> int:
        return index


def test_a_caption_of_tfds_that_is_no_unicode_is_left_out() -> None:
    texts = [b"words", b"caf\xe9", "a\ud83d", np.array([b"one", b"\xff"], object)]
    records = [{"image": b"png", "caption": text} for text in texts]
    indices = [b"0", b"1", b"2", b"3"]
    source = Undecoded(indices, records, addresses.parse_address("tfds:any"), NoShards([], []))
    assert source[0]["captions"] == ("words",)
    for index in (1, 2, 3):
        with pytest.raises(CorruptDataError, match="save it as UTF-8") as found:
            source[index]
        assert found.value.reason == base.NOT_UNICODE


def test_an_address_of_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no data source 'zip:/x\.zip': give shapes/NAME"):
        addresses.open_source(Address("zip:/x.zip"), tmp_path)


def test_a_mixture_may_name_files_in_any_bytes(tmp_path: Path) -> None:
    for codec in ("latin-1", "utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "list").write_bytes("folder:/caf\xe9\n# no\n".encode(codec))
        (address,) = addresses.read_addresses(str(tmp_path / "list"))
        wanted = "folder:/caf\udce9" if codec == "latin-1" else "folder:/café"
        assert address.dataset == wanted


def test_a_feature_that_is_no_text_is_named(data_dir: Path) -> None:
    source = addresses.open_source(
        addresses.parse_address("tfds:photographs?image=photo&text=label"), data_dir
    )
    with pytest.raises(ValueError, match=r"feature 'label' of example 2 is no text but"):
        source[2]


def test_files_that_need_tensorflow_are_named(data_dir: Path, tmp_path: Path) -> None:
    info = next(data_dir.glob("photographs/*/dataset_info.json"))
    folder = tmp_path / "photographs" / "1.2.0"
    folder.mkdir(parents=True)
    for file in info.parent.iterdir():
        changed = file.read_bytes().replace(b"array_record", b"tfrecord")
        (folder / file.name.replace("array_record", "tfrecord")).write_bytes(changed)
    with pytest.raises(ValueError, match=r"is stored as tfrecord, .* prepare it with"):
        addresses.open_source(
            addresses.parse_address("tfds:photographs?image=photo&text=alt"), tmp_path
        )


def test_the_embedded_dataset_is_one(tmp_path: Path) -> None:
    dataset.build_shapes("shapes/tiny", tmp_path, workers=1)
    source = addresses.open_source(
        addresses.parse_address("shapes/tiny?split=validation"), tmp_path
    )
    assert source[1] == {
        k: v
        for k, v in dataset.open_dataset("shapes/tiny", "validation", tmp_path)[1].items()
        if k in ("image", "caption", "captions", "scene")
    }
    assert source[1]["captions"] == (source[1]["caption"],)
    first = base.First(source, 3)
    assert len(first) == 3
    assert first[2] == source[2]
    assert first.key(2) == source.key(2) == "validation-0000002"
    assert first.skipped == source.skipped == {}


def test_every_form_leads_to_its_source(tmp_path: Path) -> None:
    png, data_dir = png_of(7), tmp_path / "data"
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "a.json").write_text('{"alt": ["one", "two"]}')
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.png").write_bytes(png)
    (tmp_path / "rows" / "metadata.jsonl").write_text('{"file_name": "a.png", "alt": "words"}')
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.png", "a.json", "a.txt"):
            tar.add(tmp_path / name, name)
    pq.write_table(pa.table({"photo": [png], "alt": ["words"]}), tmp_path / "x.parquet")
    found = {
        "tars:x.tar": ("words",),
        "tars:x.tar?text=alt": ("one", "two"),
        "folder:.": ("words",),
        "folder:rows?text=alt": ("words",),
        "parquet:*.parquet?image=photo&text=alt": ("words",),
    }
    for text, captions in found.items():
        form, _, place = text.partition(":")
        source = addresses.open_source(
            addresses.parse_address(f"{form}:{tmp_path}/{place}"), data_dir
        )
        assert [dict(example) for example in source] == [
            {"image": png, "caption": captions[0], "captions": captions}
        ]
        assert source.key(0).split("/")[-1] in ("a", "a.png", "0")


def test_names_are_kept_up_to_a_number_and_counted_beyond() -> None:
    skips, more = base.SkipLog(), base.SkipLog()
    for n in range(150):
        skips.add("empty", f"{n}")
    more.extend(skips.collect(), "x/")
    more.add("empty", "last\n")
    for found, first, total in ((skips, "0", 150), (more, "x/0", 151)):
        names = found.collect()["empty"]
        assert (len(names), names[0], names.total) == (base.LISTED, first, total)
        assert pickle.loads(pickle.dumps(names)).total == total
    assert base.summarise_skips(more.collect()) == "151 empty (x/0)"


HOSTILE = Path(__file__).parent / "hostile_tfds"
STRANGER = "stranger_features.Image"
FEATURES = "tensorflow_datasets.core.features"
NESTED = {"type": STRANGER, "content": {}}
INNER = {"type": f"{FEATURES}.sequence_feature.Sequence", "content": {"feature": NESTED}}


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of datasets, one of which names a class of a module that can be imported."""
    shutil.copytree(HOSTILE / "evilset", tmp_path / "evilset")
    (tmp_path / "modules").mkdir()
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    (tmp_path / "modules" / "stranger_features.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield tmp_path
    sys.modules.pop("stranger_features", None)


@pytest.mark.parametrize(
    "features",
    [
        None,  # as they are
        {"python_class_name": STRANGER, "image": {}},
        {"pythonClassName": f"{FEATURES}.a.B", "featuresDict": {"features": {"a": NESTED}}},
        {**INNER, "proto_cls": "", "content": json.dumps(INNER)},
        {
            "pythonClassName": f"{FEATURES}.sequence_feature.Sequence",
            "jsonFeature": {"json": json.dumps({"feature": NESTED})},
        },
        {"pythonClassName": "tensorflow_datasets_x.Image", "image": {}},
    ],
)
def test_classes_of_strangers_are_not_imported(hostile: Path, features: dict | None) -> None:
    if features is not None:
        (hostile / "evilset" / "1.0.0" / "features.json").write_text(json.dumps(features))
    with pytest.raises(ValueError, match="a class of neither tensorflow_datasets nor imagen_jax"):
        addresses.open_source(addresses.parse_address("tfds:evilset"), hostile)
    assert not (hostile / "ran").exists()


def test_classes_in_the_other_file_are_not_imported(hostile: Path) -> None:
    info = hostile / "evilset" / "1.0.0" / "dataset_info.json"
    told = json.loads(info.read_text()) | {"features": {"pythonClassName": STRANGER, "image": {}}}
    info.write_text(json.dumps(told))
    honest = {"pythonClassName": f"{FEATURES}.image_feature.Image", "image": {}}
    (info.parent / "features.json").write_text(json.dumps(honest))
    with pytest.raises(ValueError, match=r"dataset_info.json names 'stranger_features.Image'"):
        addresses.open_source(addresses.parse_address("tfds:evilset"), hostile)
    assert not (hostile / "ran").exists()


def test_a_module_that_the_user_names_is_imported(hostile: Path) -> None:
    with pytest.raises(ValueError, match=r"allow it by tfds:evilset\?module=stranger_features on"):
        addresses.open_source(addresses.parse_address("tfds:evilset?module=other"), hostile)
    assert not (hostile / "ran").exists()
    allowed = addresses.parse_address("tfds:evilset?module=stranger_features")
    with pytest.raises(ValueError, match="Unrecognized FeatureConnector"):  # it has no such class
        addresses.open_source(allowed, hostile)
    assert (hostile / "ran").exists()


def test_a_file_allows_no_module(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("tfds:evilset?module=stranger_features\n")
    with pytest.raises(ValueError, match="only an address on the command line may"):
        addresses.read_addresses(str(tmp_path / "list"))
    with pytest.raises(ValueError, match="only an address on the command line may"):
        addresses.parse_dataset("tfds:evilset?module=stranger_features", "train")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, " " * (1 << 24) + "1"])
def test_damaged_features_are_named(hostile: Path, text: str) -> None:
    (hostile / "evilset" / "1.0.0" / "features.json").write_text(text)
    with pytest.raises(ValueError, match=r"features.json (is not JSON|has 16,777,217 bytes)"):
        addresses.open_source(addresses.parse_address("tfds:evilset"), hostile)


@pytest.mark.parametrize("counts", [["1"], ["1000000000000000000"], ["7"] * 1_000_000])
def test_shards_have_no_more_examples_than_bytes(hostile: Path, counts: list[str]) -> None:
    """Nothing is spent on examples that a few bytes claim: their files are not there."""
    place = hostile / "evilset" / "1.0.0"
    told = json.loads((place / "dataset_info.json").read_text())
    told["splits"][0]["shardLengths"] = counts
    (place / "dataset_info.json").write_text(json.dumps(told))
    image = {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "png"}
    features = {
        "image": {"pythonClassName": f"{FEATURES}.image_feature.Image", "image": image},
        "text": {"pythonClassName": f"{FEATURES}.text_feature.Text", "text": {}},
    }
    whole = {
        "pythonClassName": f"{FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (place / "features.json").write_text(json.dumps(whole))
    with pytest.raises(CorruptDataError, match=r"is said to have 1,?0?[\d,]* (examples in|shards)"):
        addresses.open_source(addresses.parse_address("tfds:evilset?text=text"), hostile)


def test_names_of_shards_that_cannot_be_made_are_damage() -> None:
    class Split:
        """A split whose files' names are of no template, as a changed dataset_info.json has it."""

        shard_lengths = (3,)

        @property
        def filepaths(self) -> list[str]:
            raise ValueError("Empty attribute in format string")

    with pytest.raises(CorruptDataError, match=r"^own is damaged .'Empty attribute.*: copy or"):
        _check_shards(Split(), "own")
