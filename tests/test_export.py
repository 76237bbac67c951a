"""An exported cascade paints what the runs it came from paint, or is refused by file name."""

import hashlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import imagen_jax
from imagen_jax import checkpoint, config, export, models, pretrained, weights
from imagen_jax.cli import evaluate, sample
from imagen_jax.cli import export as command

PROMPTS = ["a large red circle on a white background", ""]
STEP = 7


def _params(experiment: config.Experiment, seed: int):
    """Random weights, none of them zero, so that each one shows in the pictures."""
    shapes = jax.eval_shape(
        lambda key: models.init(
            models.build(experiment.stage.model),
            key,
            stage=experiment.stage,
            text_width=experiment.text.width,
            text_length=experiment.text.max_length,
        ),
        jax.random.key(0),
    )
    noise = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jax.device_put(noise.normal(0.0, 0.2, x.shape).astype(np.float32)), shapes
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The first two stages of `tiny` as training leaves them, with random weights."""
    folder = tmp_path_factory.mktemp("export") / "runs"
    for seed, experiment in enumerate(config.load("tiny")[:2]):
        run = folder / experiment.stage.name
        checkpoint.write_config(run, experiment)
        writer = checkpoint.Checkpoints(run)
        writer.save(STEP, {"ema": _params(experiment, seed)}, experiment)
        writer.close()
    return folder


@pytest.fixture(scope="module")
def trained(runs: Path) -> imagen_jax.Imagen:
    return imagen_jax.load(runs)


@pytest.fixture(scope="module")
def exported(runs: Path) -> Path:
    """Both precisions, each exported by the command."""
    for dtype in ("float32", "bfloat16"):
        out = runs.parent / "exported" / dtype
        command.run([str(runs), "--out", str(out), "--dtype", dtype])
    return runs.parent / "exported"


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(exported / "bfloat16", tmp_path / "copy")
    return tmp_path / "copy"


def test_the_folder_is_complete(exported: Path, trained) -> None:
    folder = exported / "bfloat16"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "README.md",
        "base8/config.json",
        "base8/weights.safetensors",
        "manifest.json",
        "sr16/config.json",
        "sr16/weights.safetensors",
    ]
    assert sorted(p.name for p in exported.iterdir()) == ["bfloat16", "float32"]  # no leftovers
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == {
        f"{s}/{f}" for s in ("base8", "sr16") for f in ("config.json", "weights.safetensors")
    }
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    card = (folder / "README.md").read_text()
    for painter, (name, facts) in zip(trained.painters, manifest["stages"].items(), strict=True):
        assert name == painter.stage.name
        assert facts["step"] == STEP
        assert facts["parameters"] == models.count(painter.params)
        size = (folder / name / "weights.safetensors").stat().st_size
        assert f"| `{name}` | {facts['parameters']:,} | 7 | {size:,} |" in card
        assert checkpoint.read_config(folder / name).stage == painter.stage


def test_the_same_cascade_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    command.run([str(exported / "bfloat16"), "--out", str(tmp_path / "again")])
    first, again = (
        json.loads((f / "manifest.json").read_text())
        for f in (exported / "bfloat16", tmp_path / "again")
    )
    assert first == again


def test_what_is_exported_paints_as_what_was_trained(exported: Path, trained) -> None:
    full, half = (imagen_jax.load(exported / dtype) for dtype in ("float32", "bfloat16"))
    assert full.steps == half.steps == trained.steps == (STEP, STEP)
    assert full.experiments == half.experiments == trained.experiments
    jax.tree.map(
        np.testing.assert_array_equal,
        [p.params for p in full.painters],
        [p.params for p in trained.painters],
    )
    before, exact, rounded = (i.paint(PROMPTS, seed=3) for i in (trained, full, half))
    for name, pictures in before.items():
        np.testing.assert_array_equal(exact[name], pictures)
        difference = np.abs(rounded[name].astype(int) - pictures)
        assert pictures.std() > 20  # not a flat picture, which no weight could change
        assert 0 < difference.max() <= 3, name  # of 255
        assert difference.mean() <= 0.3, name


def test_an_existing_folder_is_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine exists"):
        command.run([str(exported / "bfloat16"), "--out", str(tmp_path / "mine")])
    assert not list((tmp_path / "mine").iterdir())


def test_a_failed_export_leaves_nothing(trained, tmp_path: Path, monkeypatch) -> None:
    def fail(*_, **__) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(weights, "save", fail)
    stage = export.Trained(
        experiment=trained.experiments[0], params=trained.painters[0].params, step=1
    )
    with pytest.raises(OSError, match="disk full"):
        export.write(tmp_path / "out", [stage], dtype="float32")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="each stage needs a name"):
        export.write(tmp_path / "out", [stage, stage], dtype="float32")


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("base8/weights.safetensors", "has changed"),
        ("sr16/config.json", "has changed"),
        ("sr16/weights.safetensors", "is missing"),
        ("base8/config.json", "is missing"),
    ],
)
def test_a_file_unlike_the_manifest_is_refused_by_name(copy: Path, file: str, what: str) -> None:
    if what == "is missing":
        (copy / file).unlink()
    else:
        content = bytearray((copy / file).read_bytes())
        content[-1] ^= 1  # one bit
        (copy / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"not as manifest.json says: {file} {what};"):
        imagen_jax.load(copy)


def test_a_lost_stage_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "sr16")
    with pytest.raises(ValueError, match=r"sr16/config\.json is missing; sr16/weights"):
        imagen_jax.load(copy)


def test_weights_that_are_all_lost_are_refused(copy: Path) -> None:
    for stage in ("base8", "sr16"):
        (copy / stage / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"base8/weights\.safetensors is missing; sr16/weights"):
        imagen_jax.load(copy)


def test_weights_that_nobody_listed_are_refused(copy: Path) -> None:
    shutil.copytree(copy / "sr16", copy / "other")
    with pytest.raises(ValueError, match=r"other/weights\.safetensors is not listed"):
        imagen_jax.load(copy)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"files": {"base8/config.json": {}}}'])
def test_no_manifest_no_cascade(copy: Path, content: str | None) -> None:
    (copy / "manifest.json").unlink()
    if content is not None:
        (copy / "manifest.json").write_text(content)
    with pytest.raises((FileNotFoundError, ValueError), match=r"manifest\.json"):
        imagen_jax.load(copy)


def test_checkpoints_beside_weights_are_refused(copy: Path, runs: Path) -> None:
    shutil.copytree(runs / "sr16" / "checkpoints", copy / "sr16" / "checkpoints")
    with pytest.raises(ValueError, match=r"sr16 has both weights\.safetensors and checkpoints/"):
        imagen_jax.load(copy)


def test_weights_without_their_step_are_refused(copy: Path, trained) -> None:
    params = trained.painters[0].params
    weights.save(copy / "base8" / export.WEIGHTS, params, dtype="bfloat16", metadata={})
    with pytest.raises(ValueError, match=r"base8/weights\.safetensors does not say its step"):
        export.read(copy / "base8", params)


def test_one_stage_loads_alone(exported: Path, monkeypatch) -> None:
    assert [p.stage.name for p in imagen_jax.load(exported / "bfloat16" / "sr16").painters] == [
        "sr16"
    ]
    monkeypatch.chdir(exported / "bfloat16" / "base8")
    assert imagen_jax.load(".").painters[0].stage.name == "base8"


def test_an_embedded_cascade_is_known_by_name(
    exported: Path, runs: Path, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", exported)
    monkeypatch.chdir(tmp_path)
    assert pretrained.names() == ["bfloat16", "float32"]
    assert pretrained.folder("float32") == exported / "float32"
    assert imagen_jax.load("bfloat16").steps == (STEP, STEP)
    embedded = "the embedded cascades are: bfloat16, float32"
    with pytest.raises(FileNotFoundError, match=f"no cascade at shapes: .*{embedded}"):
        imagen_jax.load("shapes")
    with pytest.raises(FileNotFoundError, match="no embedded cascade 'shapes'"):
        pretrained.folder("shapes")
    # A folder of that name comes first, and says so when it holds no cascade.
    Path("bfloat16").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{embedded} \(this folder hides that one\)"):
        imagen_jax.load("bfloat16")
    shutil.copytree(runs / "base8", "float32")
    assert len(imagen_jax.load("float32").painters) == 1


def test_sample_and_eval_take_a_name(exported: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", exported)
    monkeypatch.chdir(tmp_path)
    sample.run(["bfloat16", *PROMPTS, "--out", "pictures"])
    document = json.loads(Path("pictures/metadata.json").read_text())
    assert document["cascade"] == "bfloat16"
    assert [stage["step"] for stage in document["stages"]] == [STEP, STEP]
    few = ["--pictures", "2", "--grid", "2", "--batch-size", "8", "--sweep"]
    evaluate.run(["bfloat16", "--out", "evaluation", *few])
    page = Path("evaluation/index.html").read_text()
    assert "Evaluation of bfloat16" in page
    assert "losses.png" not in page  # the embedded cascade has no metrics.jsonl
