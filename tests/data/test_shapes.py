"""The shapes dataset: built and read by TFDS without TensorFlow, refused when cut short."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data.synthetic.shapes import dataset, generate, scenes
from imagen_jax.data.synthetic.shapes.captions import parse

SHARD = "shapes-train.array_record-00000-of-00001"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    dataset.build_shapes("tiny", folder, workers=1)
    return folder


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """The folder of one configuration's version, free to be damaged; its root is `tmp_path`."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path / "shapes" / "tiny" / "1.1.0"


def test_every_split_holds_what_its_stream_paints(built: Path) -> None:
    config = dataset.Shapes.builder_configs["tiny"]
    for stream, split in enumerate(dataset.SPLITS):
        source = dataset.open_dataset("shapes/tiny", split, built)
        assert len(source) == config.size(split)
        series = generate.SceneStream(config.grammar_of(split), config.seed, stream)
        with pytest.raises(IndexError, match=f"example {len(source)} of {len(source)}"):
            source[len(source)]
        for index in (0, len(source) - 1):
            painted = vars(generate.generate_split(series, index))
            assert source[index] == painted | {"captions": (painted["caption"],)}
            assert source.key(index) == f"{split}-{index:07d}"


def test_examples_are_pictures_with_captions_and_scenes(built: Path) -> None:
    for example in dataset.open_dataset("tiny", "held_out", built):
        picture = Image.open(io.BytesIO(example["image"]))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (256, 256))
        scene = scenes.from_json(example["scene"])
        assert len(parse(example["caption"]).shapes) == len(scene.shapes)
        assert {(shape.shape, shape.colour) for shape in scene.shapes} <= scenes.HELD_OUT


def test_a_source_can_be_sent_to_loader_processes(built: Path) -> None:
    source = dataset.open_dataset("tiny", "train", built)
    again = pickle.loads(pickle.dumps(source))
    assert again[7] == source[7]


def test_building_again_changes_nothing(built: Path) -> None:
    files = sorted(path for path in built.rglob("*") if path.is_file())
    before = [(path, path.stat().st_mtime_ns) for path in files]
    dataset.build_shapes("tiny", built)
    files = sorted(path for path in built.rglob("*") if path.is_file())
    assert [(path, path.stat().st_mtime_ns) for path in files] == before
    assert not (built / "downloads").exists()


def test_neither_tensorflow_nor_jax_is_imported(built: Path) -> None:
    code = (
        "import sys; from imagen_jax.data.synthetic.shapes import dataset;"
        f"dataset.build_shapes('tiny', {str(built / 'again')!r}, workers=1);"
        f"dataset.open_dataset('tiny', 'train', {str(built / 'again')!r})[0];"
        "print({'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"  # nor did TFDS print anything


def _cut(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: _cut(folder / SHARD, 0.0), f"{SHARD} was cut short"),
        (lambda folder: _cut(folder / SHARD, 0.5), f"{SHARD} was cut short"),
        (lambda folder: _cut(folder / SHARD, 0.999), f"{SHARD} was cut short"),
        (lambda folder: (folder / SHARD).unlink(), f"{SHARD} is missing"),
        (
            lambda folder: shutil.copy(
                folder / SHARD.replace("train", "validation"), folder / SHARD
            ),
            f"{SHARD} has 8 images instead of 40",
        ),
        (lambda folder: (folder / "dataset_info.json").unlink(), "dataset_info.json is missing"),
        (lambda folder: _cut(folder / "features.json", 0.5), "features.json was cut short"),
    ],
)
def test_a_dataset_that_was_cut_short_says_so(copied: Path, tmp_path: Path, damage, what) -> None:
    damage(copied)
    for use in (dataset.build_shapes, lambda name, root: dataset.open_dataset(name, "train", root)):
        with pytest.raises(ValueError, match="unusable dataset") as refusal:
            use("tiny", tmp_path)
        told = str(refusal.value)
        assert str(copied) in told
        assert what in told
        assert "delete that folder and run `imagen data`" in told


def test_pictures_of_an_older_recipe_are_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "metadata.json").write_text(json.dumps({"recipe": "older"}))
    with pytest.raises(ValueError, match="another recipe"):
        dataset.build_shapes("tiny", tmp_path)


def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(series: generate.SceneStream, count: int, *, workers: int):
        yield generate.generate_split(series, 0)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "generate_splits", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dataset.build_shapes("tiny", tmp_path, workers=1)
    assert not list(tmp_path.rglob("*1.1.0*"))
    killed = tmp_path / "shapes" / "tiny" / "incomplete.ABC123_1.1.0"  # what a killed one leaves
    killed.mkdir()
    (killed / "dataset_info.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="run `imagen data`"):
        dataset.open_dataset("tiny", "train", tmp_path)
    dataset.build_shapes("tiny", tmp_path, workers=1)
    assert not killed.exists()
    assert len(dataset.open_dataset("tiny", "train", tmp_path)) == 40


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no dataset 'emoji'; known: full, quickstart, tiny"):
        dataset.build_shapes("emoji", tmp_path)
    with pytest.raises(ValueError, match="no split 'test'; it has train, validation, held_out"):
        dataset.open_dataset("tiny", "test", tmp_path)


def test_an_exam_is_new_and_in_the_manner_of_its_split() -> None:
    words, pixels = dataset.eval_set_of("tiny", "held_out", count=6, seed=0, size=64)
    assert pixels.shape == (6, 64, 64, 3)
    assert pixels.dtype == np.uint8
    for spec in map(parse, words):
        assert {(shape.shape, shape.colour) for shape in spec.shapes} <= scenes.HELD_OUT
    config = dataset.Shapes.builder_configs["tiny"]
    series = generate.SceneStream(
        config.grammar_of("held_out"), 0, dataset.SPLITS.index("held_out")
    )
    assert words != [generate.generate_split(series, index).caption for index in range(6)]
    assert words == dataset.eval_set_of("tiny", "held_out", count=6, seed=0, size=64)[0]
    assert words != dataset.eval_set_of("tiny", "held_out", count=6, seed=1, size=64)[0]


def test_a_recipe_tells_sizes_where_they_are_not_all() -> None:
    told = {name: found.recipe() for name, found in dataset.Shapes.builder_configs.items()}
    assert {name for name, recipe in told.items() if "sizes=('large',)" in recipe} == {"quickstart"}
    assert {name for name, recipe in told.items() if "sizes" in recipe} == {"quickstart"}


def test_the_two_datasets_differ_as_described() -> None:
    full, quick = (dataset.Shapes.builder_configs[name] for name in ("full", "quickstart"))
    assert [full.size(split) for split in dataset.SPLITS] == [150_000, 2_000, 2_000]
    assert quick.train < full.train
    assert (quick.grammar.single, quick.grammar.patterned) == (1.0, 0.0)
    assert quick.grammar.sizes == ("large",)
    assert set(quick.grammar.shapes) < set(full.grammar.shapes)
    assert set(quick.grammar.backgrounds) < set(full.grammar.backgrounds)
    assert {config.grammar.pairs for config in (full, quick)} == {"exclude"}
