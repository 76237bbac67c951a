"""Sources: what TFDS prepared is read without TensorFlow; what is not there is named."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from imagen_jax.data import shapes, sources
from imagen_jax.data.sources import Address

SIDE, COUNT = 8, 5


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
    return folder


def test_an_address_has_defaults_and_names_features() -> None:
    assert sources.parse("shapes/full") == Address("shapes/full", "train", "image", "caption")
    given = sources.parse("tfds:coco_captions/2014?split=val&image=photo&text=alt%20text")
    assert given == Address("tfds:coco_captions/2014", "val", "photo", "alt text")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("coco", "no data source 'coco': give shapes/NAME"),
        ("tfds:", "no data source 'tfds:'"),
        ("tfds:coco?spilt=val", "unknown 'spilt'"),
    ],
)
def test_what_is_no_address_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sources.parse(text)


def test_a_prepared_dataset_is_read_by_its_own_names(data_dir: Path) -> None:
    source = sources.open(sources.parse("tfds:photographs?image=photo&text=alt"), data_dir)
    assert len(source) == COUNT
    for index in (3, 0, 4):
        assert source[index] == {"image": png_of(index), "caption": f"№ {index}"}


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("tfds:nothing", FileNotFoundError, "no TFDS dataset 'nothing' under .*array_record"),
        ("tfds:photographs?split=val", ValueError, "no split 'val' under .*; it has train"),
        ("tfds:photographs", ValueError, "no feature 'image'; it has .*photo"),
        ("tfds:photographs?image=photo&text=no", ValueError, "no feature 'no'; it has .*alt"),
    ],
)
def test_what_is_not_there_is_named(data_dir: Path, text: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        sources.open(sources.parse(text), data_dir)


def test_a_feature_that_is_no_text_is_named(data_dir: Path) -> None:
    source = sources.open(sources.parse("tfds:photographs?image=photo&text=label"), data_dir)
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
        sources.open(sources.parse("tfds:photographs?image=photo&text=alt"), tmp_path)


def test_the_embedded_dataset_is_one(tmp_path: Path) -> None:
    shapes.build("shapes/tiny", tmp_path, workers=1)
    source = sources.open(sources.parse("shapes/tiny?split=validation"), tmp_path)
    assert source[1] == {
        k: v
        for k, v in shapes.source("shapes/tiny", "validation", tmp_path)[1].items()
        if k in ("image", "caption", "scene")
    }
    first = sources.First(source, 3)
    assert len(first) == 3
    assert first[2] == source[2]
