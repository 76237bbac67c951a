"""An exported cascade paints what the runs it came from paint, or is refused by file name."""

import dataclasses
import hashlib
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import get_args

import jax
import numpy as np
import PIL.Image
import pytest
from small_network import FOLDER

import imagen_jax
from imagen_jax import config, export, models, pretrained
from imagen_jax.cli import evaluate, sample
from imagen_jax.cli import export as command
from imagen_jax.export import manifest, text_encoder
from imagen_jax.io import checkpoints, run_dir, safetensors

_WORDS = text_encoder.TextEncoderEntry(
    kind="none", encoder="t5", tokenizer="", identity="0", vocabulary="1", width=4, max_length=2,
    dtype="float32", clean=False,
)  # fmt: skip
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
    """A small cascade as training leaves it, with random weights."""
    folder = tmp_path_factory.mktemp("export") / "runs"
    for seed, experiment in enumerate(config.load(str(FOLDER))):
        run = folder / experiment.stage.name
        run_dir.write_config(run, experiment)
        writer = checkpoints.Checkpoints(run)
        writer.save(STEP, {"ema": _params(experiment, seed)}, experiment)
        writer.close()
    return folder


@pytest.fixture(scope="module")
def trained(runs: Path) -> imagen_jax.Imagen:
    return imagen_jax.load(runs)


@pytest.fixture(scope="module")
def exported(runs: Path) -> Path:
    """Every precision, exported by the command; one of them with all that a bundle can hold."""
    for dtype in get_args(safetensors.Dtype):
        out = runs.parent / "exported" / dtype
        more = [] if dtype == "bfloat16" else ["--weights-only"]
        command.run([str(runs), "--out", str(out), "--dtype", dtype, *more])
    return runs.parent / "exported"


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(exported / "bfloat16", tmp_path / "copy")
    return tmp_path / "copy"


STAGES = ("base8", "sr16")
FILES = sorted(
    [
        *(f"{s}/{f}" for s in STAGES for f in ("config.json", "sample.stablehlo", run_dir.WEIGHTS)),
        *(f"text/{f}" for f in ("encode.stablehlo", "encoder.json", "spiece.model")),
        "text/weights-00001-of-00001.safetensors",
    ]
)


def test_the_folder_is_complete(exported: Path, trained) -> None:
    folder = exported / "bfloat16"
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there == {*FILES, "README.md", "manifest.json"}
    assert {p.name for p in exported.iterdir()} == set(get_args(safetensors.Dtype))  # no leftovers
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == export.FORMAT
    assert set(manifest["files"]) == set(FILES)
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["versions"]["jax"] == jax.__version__
    card = (folder / "README.md").read_text()
    for painter, (name, facts) in zip(trained.stages, manifest["stages"].items(), strict=True):
        assert name == painter.stage.name
        assert facts["step"] == STEP
        assert facts["parameters"] == models.count_parameters(painter.device_params())
        size = (folder / name / "weights.safetensors").stat().st_size
        assert f"| `{name}` | {facts['parameters']:,} | 7 | {size:,} |" in card
        assert run_dir.read_config(folder / name).stage == painter.stage
    only = exported / "float32"
    there = {p.relative_to(only).as_posix() for p in only.rglob("*") if p.is_file()}
    assert there == {"README.md", "manifest.json"} | {
        f"{s}/{f}" for s in STAGES for f in ("config.json", run_dir.WEIGHTS)
    }


def test_the_same_cascade_gives_the_same_bytes(runs: Path, exported: Path, tmp_path: Path) -> None:
    """Whoever asks, from wherever: no time, path or random order is in them."""
    imagen = imagen_jax.load(runs)
    stages = [
        export.StageCheckpoint(experiment=e, params=p.device_params(), step=STEP)
        for e, p in zip(imagen.experiments, imagen.stages, strict=True)
    ]
    contents = export.BundleOptions(text="embedded", programs=True)
    again = export.write_bundle(tmp_path / "again", stages, dtype="bfloat16", contents=contents)
    assert again == json.loads((exported / "bfloat16" / "manifest.json").read_text())
    for program in (tmp_path / "again").rglob("*.stablehlo"):
        assert b".py" not in program.read_bytes()


def test_what_is_exported_paints_as_what_was_trained(exported: Path, trained) -> None:
    full, half = (imagen_jax.load(exported / dtype) for dtype in ("float32", "bfloat16"))
    assert full.steps == half.steps == trained.steps == (STEP, STEP)
    assert full.experiments == half.experiments == trained.experiments
    jax.tree.map(
        np.testing.assert_array_equal,
        [p.device_params() for p in full.stages],
        [p.device_params() for p in trained.stages],
    )
    before, exact, rounded = (i.sample(PROMPTS, seed=3) for i in (trained, full, half))
    for name, pictures in before.items():
        np.testing.assert_array_equal(exact[name], pictures)
        difference = np.abs(rounded[name].astype(int) - pictures)
        assert pictures.std() > 20  # not a flat picture, which no weight could change
        assert 0 < difference.max() <= 3, name  # of 255
        assert difference.mean() <= 0.3, name


def test_what_rounding_changes_is_measured_and_told(exported: Path, trained) -> None:
    for dtype, least, most in (("float32", 0, 0), ("bfloat16", 1e-3, 3e-3), ("int8", 3e-3, 2e-2)):
        document = json.loads((exported / dtype / "manifest.json").read_text())
        card = (exported / dtype / "README.md").read_text()
        for painter in trained.stages:
            name = painter.stage.name
            stored = jax.tree.leaves(
                safetensors.load_params(exported / dtype / name / run_dir.WEIGHTS)
            )
            exact = [np.asarray(x) for x in jax.tree.leaves(painter.device_params())]
            off, size = (
                sum(float((x**2).sum()) for x in xs)
                for xs in ([a - b for a, b in zip(stored, exact, strict=True)], exact)
            )
            told = document["stages"][name]["deviation"]
            assert told["weights"] == pytest.approx((off / size) ** 0.5, rel=1e-2)
            assert least <= told["weights"] <= most
            assert (told["network"] > 0) == (dtype != "float32")
            assert told["network"] < 0.1
            assert f"| {told['weights']:.2%} | {told['network']:.2%} |" in card


def _again(source: Path, out: Path, *more: str) -> Path:
    command.run([str(source), "--out", str(out), "--no-programs", *more])
    return out


def test_a_text_encoder_that_is_left_out_has_to_be_given(exported: Path, tmp_path: Path) -> None:
    bundle = _again(exported / "bfloat16", tmp_path / "silent", "--text", "none")
    assert not (bundle / "text").exists()
    silent = imagen_jax.load(bundle)
    with pytest.raises(ValueError, match=r"silent was exported without its text encoder: give"):
        silent.sample(PROMPTS)
    given = imagen_jax.load(bundle, text_encoder=str(exported / "bfloat16" / "text"))
    np.testing.assert_array_equal(
        given.encode(PROMPTS).captions.text,
        imagen_jax.load(exported / "bfloat16").encode(PROMPTS).captions.text,
    )
    with pytest.raises(ValueError, match=r"text\.width=64, but 't5_1_1_mini' is 256 wide"):
        imagen_jax.load(bundle, text_encoder="t5_1_1_mini")
    # It can be exported again, but not with what it lacks.
    assert _again(bundle, tmp_path / "again", "--dtype", "int8").is_dir()
    with pytest.raises(ValueError, match="was exported without its text encoder"):
        _again(bundle, tmp_path / "more", "--text", "embedded")


def test_a_text_encoder_by_reference_is_compared(exported: Path, tmp_path: Path) -> None:
    bundle = exported / "float32"
    document = json.loads((bundle / "manifest.json").read_text())
    told, loaded = document["text"], imagen_jax.load(bundle).encoder
    assert (told["kind"], told["encoder"]) == ("reference", "t5_1_1_tiny")
    assert (told["identity"], told["vocabulary"]) == (loaded.identity, loaded.vocabulary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imagen_jax.load(bundle, text_encoder=exported / "bfloat16" / "text")  # the same, elsewhere
    facts = {k: v for k, v in document.items() if k not in ("files", "sha256", "format")}
    for field in ("identity", "vocabulary"):
        other = tmp_path / field
        shutil.copytree(bundle, other)
        for file in ("manifest.json", "README.md"):
            (other / file).unlink()
        manifest.write_manifest(other, {**facts, "text": {**told, field: "0000"}})
    with pytest.warns(UserWarning, match="was trained with text encoder 0000, but 't5_1_1_tiny'"):
        imagen_jax.load(tmp_path / "identity")
    with pytest.raises(ValueError, match="was trained with vocabulary 0000"):
        imagen_jax.load(tmp_path / "vocabulary")


def test_a_large_text_encoder_is_not_copied_unasked(
    exported: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(text_encoder, "LARGEST", 1000)
    bundle = _again(exported / "float32", tmp_path / "small")
    assert json.loads((bundle / "manifest.json").read_text())["text"]["kind"] == "reference"
    bundle = _again(exported / "float32", tmp_path / "large", "--text", "embedded")
    assert (bundle / "text" / "encoder.json").is_file()


def test_an_existing_folder_is_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine exists"):
        command.run([str(exported / "bfloat16"), "--out", str(tmp_path / "mine")])
    assert not list((tmp_path / "mine").iterdir())


def test_a_failed_export_leaves_nothing(trained, tmp_path: Path, monkeypatch) -> None:
    def fail(*_, **__) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(safetensors, "save_params", fail)
    stage = export.StageCheckpoint(
        experiment=trained.experiments[0], params=trained.stages[0].device_params(), step=1
    )
    with pytest.raises(OSError, match="disk full"):
        export.write_bundle(tmp_path / "out", [stage], dtype="float32")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with pytest.raises(ValueError, match="stage 'base8' can't be a folder beside"):
        export.write_bundle(tmp_path / "out", [stage, stage], dtype="float32")
    named = dataclasses.replace(
        stage.experiment, stage=dataclasses.replace(stage.experiment.stage, name="text")
    )
    with pytest.raises(ValueError, match="stage 'text' can't be a folder beside"):
        export.write_bundle(
            tmp_path / "out", [dataclasses.replace(stage, experiment=named)], dtype="float32"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
@pytest.mark.parametrize("fault", ["has changed", "is cut short", "is missing"])
def test_a_file_unlike_the_manifest_is_refused_by_name(copy: Path, file: str, fault: str) -> None:
    content = bytearray((copy / file).read_bytes())
    if fault == "is missing":
        (copy / file).unlink()
    elif fault == "is cut short":
        (copy / file).write_bytes(content[:-1] if file != "manifest.json" else content[:-3])
    else:
        content[len(content) // 2] ^= 1  # one bit
        (copy / file).write_bytes(content)
    said = {"is missing": "is missing"}.get(fault, "has changed")
    refusal = re.escape(file) if file == "manifest.json" else f"says: {re.escape(file)} {said};"
    with pytest.raises((ValueError, FileNotFoundError), match=refusal):
        imagen_jax.load(copy)


@pytest.mark.parametrize("file", ["text/pytorch_model.bin", "more.json", "sr16/init.py"])
def test_a_file_that_nobody_listed_is_refused(copy: Path, file: str) -> None:
    (copy / file).write_text("")
    with pytest.raises(ValueError, match=f"{re.escape(file)} is not listed"):
        imagen_jax.load(copy)


def test_hidden_files_are_no_part_of_a_bundle(copy: Path) -> None:
    """What Git, hubs and file managers leave."""
    left = (
        ".DS_Store",
        ".gitattributes",
        ".git/HEAD",
        ".cache/huggingface/x.lock",
        "sr16/._init.py",
    )
    for name in left:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("")
    (copy / ".ipynb_checkpoints").mkdir()
    shutil.copy(copy / "sr16" / "config.json", copy / ".ipynb_checkpoints")
    assert imagen_jax.load(copy).steps == (STEP, STEP)


def test_a_hidden_file_that_is_listed_is_missed(tmp_path: Path) -> None:
    (tmp_path / ".listed").write_text("")
    facts = {"text": vars(_WORDS)}
    manifest.write_manifest(tmp_path, facts)
    manifest.verify_bundle(tmp_path)
    (tmp_path / ".listed").unlink()
    with pytest.raises(ValueError, match=r"\.listed is missing"):
        manifest.verify_bundle(tmp_path)


def test_the_card_is_for_people(copy: Path) -> None:
    (copy / "README.md").write_text("completed by hand")
    assert imagen_jax.load(copy).steps == (STEP, STEP)


def test_a_large_file_is_compared_while_it_is_read(copy: Path, monkeypatch) -> None:
    file = copy / "base8" / run_dir.WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    monkeypatch.setattr(manifest, "AT_ONCE", 10_000)
    imagen = imagen_jax.load(copy)
    with pytest.raises(ValueError, match=r"says: base8/weights\.safetensors has changed;"):
        imagen.sample(["a red circle"])


@pytest.mark.parametrize("version", [export.FORMAT + 1, None])
def test_another_format_is_refused(copy: Path, version: int | None) -> None:
    document = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**document, "format": version}))
    with pytest.raises(ValueError, match=f"is of format {version}, and .* reads format 1"):
        imagen_jax.load(copy)


def test_weights_of_another_version_are_compared_with_their_config(copy: Path) -> None:
    """Both are as they were written, but the network may have changed since."""
    folder = copy.parent / "again"
    document = json.loads((copy / "manifest.json").read_text())
    text = (copy / "base8" / "config.json").read_text()
    (copy / "base8" / "config.json").write_text(text.replace('"channels": 8', '"channels": 16'))
    facts = {k: v for k, v in document.items() if k not in ("files", "sha256", "format")}
    for version, fits in ((document["versions"]["imagen_jax"], True), ("0.0.1", False)):
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        for file in ("manifest.json", "README.md"):
            (folder / file).unlink()
        manifest.write_manifest(folder, {**facts, "versions": {"imagen_jax": version}})
        if fits:
            imagen_jax.load(folder)
            continue
        with pytest.raises(ValueError, match=r"do not fit this config(.|\n)*, wanted \(3, 3,"):
            imagen_jax.load(folder)


def test_a_lost_stage_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "sr16")
    with pytest.raises(ValueError, match=r"sr16/config\.json is missing; sr16/sample"):
        imagen_jax.load(copy)


def test_weights_that_are_all_lost_are_refused(copy: Path) -> None:
    for stage in ("base8", "sr16"):
        (copy / stage / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"base8/weights\.safetensors is missing; sr16/weights"):
        imagen_jax.load(copy)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 1, "files": {}}'])
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
    listed = export.verify_bundle(copy)
    params = trained.stages[0].device_params()
    safetensors.save_params(copy / "base8" / run_dir.WEIGHTS, params, dtype="bfloat16", metadata={})
    with pytest.raises(ValueError, match=r"base8/weights\.safetensors does not say its step"):
        export.inspect_bundle(copy / "base8", trained.experiments[0], listed)


def test_one_stage_loads_alone(exported: Path, monkeypatch) -> None:
    assert [p.stage.name for p in imagen_jax.load(exported / "bfloat16" / "sr16").stages] == [
        "sr16"
    ]
    monkeypatch.chdir(exported / "bfloat16" / "base8")
    assert imagen_jax.load(".").stages[0].stage.name == "base8"


def test_an_embedded_cascade_is_known_by_name(
    exported: Path, runs: Path, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", exported)
    monkeypatch.chdir(tmp_path)
    assert pretrained.list_names() == ["bfloat16", "float32", "int8"]
    assert pretrained.folder_of("float32") == exported / "float32"
    assert imagen_jax.load("bfloat16").steps == (STEP, STEP)
    embedded = "the embedded cascades are: bfloat16, float32, int8"
    with pytest.raises(FileNotFoundError, match=f"no cascade at shapes: .*{embedded}"):
        imagen_jax.load("shapes")
    with pytest.raises(FileNotFoundError, match="no embedded cascade 'shapes'"):
        pretrained.folder_of("shapes")
    # A folder of that name comes first, and says so when it holds no cascade.
    Path("bfloat16").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{embedded} \(this folder hides that one\)"):
        imagen_jax.load("bfloat16")
    shutil.copytree(runs / "base8", "float32")
    assert len(imagen_jax.load("float32").stages) == 1


def test_sample_and_eval_take_a_name(exported: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", exported)
    monkeypatch.chdir(tmp_path)
    sample.run(["bfloat16", *PROMPTS, "--out", "pictures", "--offload"])
    document = json.loads(Path("pictures/metadata.json").read_text())
    assert document["cascade"] == "bfloat16"
    listed = json.loads((exported / "bfloat16" / "manifest.json").read_text())
    assert document["text_encoder"] == listed["text"]["identity"]
    assert [stage["step"] for stage in document["stages"]] == [STEP, STEP]
    few = ["--images", "2", "--grid", "2", "--batch-size", "8", "--sweep"]
    evaluate.run(["bfloat16", "--out", "evaluation", *few])
    page = Path("evaluation/index.html").read_text()
    assert "Evaluation of bfloat16" in page
    assert "losses.png" not in page  # the embedded cascade has no metrics.jsonl


def test_words_of_captions_go_with_the_cascade(runs: Path, tmp_path: Path) -> None:
    """Of any source, and an exported cascade that is exported again keeps them."""
    data = tmp_path / "images"
    data.mkdir()
    PIL.Image.new("RGB", (8, 8)).save(data / "a.png")
    (data / "a.txt").write_text("A tram in Lisbon, at dusk")
    first, again = tmp_path / "first", tmp_path / "again"
    asked = ["--weights-only", "--captions-of", f"folder:{data}", "--data-dir", str(tmp_path)]
    command.run([str(runs), "--out", str(first), *asked])
    assert (first / manifest.WORDS).read_text() == "a\nat\ndusk\nin\nlisbon\ntram\n"
    command.run([str(first), "--out", str(again), "--weights-only"])
    with pytest.warns(UserWarning, match=r"no caption in training has the word 'cat':"):
        imagen_jax.load(again).encode(["a cat in a Tram"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imagen_jax.load(again).encode(["a tram at dusk"])

    (data / "a.txt").write_text("!!!")
    with pytest.raises(ValueError, match=r"--captions-of 'folder:.*: none of 1 examples has a"):
        command.run([str(runs), "--out", str(tmp_path / "no"), *asked])
    with pytest.raises(FileExistsError, match="first exists; give another folder"):
        command.run([str(runs), "--out", str(first), "--captions-of", "folder:nowhere"])
    (again / manifest.WORDS).write_text("cat\n")
    with pytest.raises(ValueError, match=r"words\.txt has changed; copy or export it again"):
        imagen_jax.load(again)
    with pytest.raises(SystemExit):
        command.run([str(runs), "--out", str(tmp_path / "no"), "--form", "orbax", *asked[1:]])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        command.run([str(runs), "--out", str(tmp_path / "no"), "--captions-of", "folder:nowhere"])
    assert not (tmp_path / "no").exists()
