"""The commands, one after another, on a small cascade: dataset to images to scores."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from small_network import FOLDER

import imagen_jax
from imagen_jax import config
from imagen_jax.cli import data, encode, evaluate, preview_hook, sample, train
from imagen_jax.data import pipeline
from imagen_jax.data.store import store
from imagen_jax.evaluate import evaluate as evaluation
from imagen_jax.evaluate.settings import EvaluationSettings
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.models import null_caption
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.pretrained import text_encoder
from imagen_jax.train import anomalies, state
from imagen_jax.train.state import TrainState

pytestmark = pytest.mark.usefixtures("one_device")  # on eight: `test_loop`, `test_processes`
PROMPTS = ("a large red circle on a white background", "")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the tiny dataset, its encodings and a trained cascade of two stages."""
    folder = tmp_path_factory.mktemp("tiny")
    data.run(["build", "shapes/tiny", "--data-dir", str(folder / "data"), "--workers", "1"])
    encode.run([str(FOLDER), "--data-dir", str(folder / "data")])
    where = ["--workdir", str(folder / "cascade"), "--data-dir", str(folder / "data")]
    train.run([str(FOLDER), *where])
    return folder


@pytest.fixture(scope="module")
def imagen(built: Path) -> imagen_jax.Imagen:
    return imagen_jax.load(built / "cascade")


def test_training_leaves_config_checkpoints_and_logs(built: Path) -> None:
    for run in ("base8", "sr16"):
        folder = built / "cascade" / run
        experiment = config.from_json((folder / "config.json").read_text())
        assert experiment.stage.name == run
        assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["2", "4"]
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [x["step"] for x in lines] == [2, 4]
        assert {"loss", "grad_norm", "images_per_s"} <= set(lines[0])
        assert list(folder.glob("events.*"))


def test_the_average_is_what_is_loaded(built: Path, imagen) -> None:
    saved = checkpoints.Checkpoints(built / "cascade" / "base8", read_only=True)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        imagen.stages[0].device_params(),
    )
    ema = saved.restore({"ema": shapes})["ema"]
    params = saved.restore({"params": shapes})["params"]
    jax.tree.map(np.testing.assert_array_equal, imagen.stages[0].device_params(), ema)
    differs = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ema, params)
    assert max(jax.tree.leaves(differs)) > 0


def test_sample_writes_pictures_grid_and_metadata(built: Path, imagen) -> None:
    out = built / "samples"
    sample.run([str(built / "cascade"), *PROMPTS, "--out", str(out), "--seed", "3"])
    document = json.loads((out / "metadata.json").read_text())
    assert [p["prompt"] for p in document["images"]] == list(PROMPTS)
    assert document["seed"] == 3
    assert [s["name"] for s in document["stages"]] == ["base8", "sr16"]
    assert [s["step"] for s in document["stages"]] == [4, 4]
    again = imagen(PROMPTS, seed=3)
    for entry, picture in zip(document["images"], again, strict=True):
        with Image.open(out / entry["file"]) as saved:
            np.testing.assert_array_equal(saved, picture)
    assert again[0].size == (16, 16)
    with Image.open(out / "grid.png") as sheet:
        assert sheet.width > 32


def test_an_empty_prompt_is_unconditional(imagen) -> None:
    prompts = imagen.encode(["", "a red circle on a white background"])
    assert prompts.captions.has_text.tolist() == [False, True]


def test_a_long_prompt_is_cut_with_a_warning_that_names_what_was_lost(imagen) -> None:
    prompt = "a red circle on a white background " * 4 + "and a purple heart"
    with pytest.warns(UserWarning, match="purple heart"):
        imagen.encode([prompt])


@pytest.mark.parametrize("prompts", [[], ()])
def test_no_prompts_are_refused(imagen, prompts) -> None:
    with pytest.raises(ValueError, match="prompts must be a list"):
        imagen(prompts)


def test_unknown_stages_and_options_are_refused(imagen) -> None:
    with pytest.raises(ValueError, match="no stage 'sr64' in this cascade"):
        imagen(["a"], last_stage="sr64")
    with pytest.raises(ValueError, match="unknown sampler option 'stepz'"):
        imagen.with_sampler({"stepz": 3})
    with pytest.raises(ValueError, match="no stage 'sr64'"):
        imagen.with_sampler({"steps": 3}, stage="sr64")


@pytest.mark.slow
def test_every_sampler_option_has_an_effect(imagen) -> None:
    base = imagen.with_sampler({"steps": 3, "kind": "ancestral", "stochasticity": 0.3})
    reference = base.sample(PROMPTS[:1], last_stage="sr16")["sr16"].astype(int)
    for change in (
        {"steps": 4},
        {"kind": "ddim"},
        {"kind": "dpmpp_2m"},
        {"kind": "edm_heun"},
        {"stochasticity": 0.9},
        {"guidance_weight": 9.0},
        {"aug_level": 0.6},
        {"threshold": "none"},
        {"percentile": 60.0},
    ):
        painted = (
            base.with_sampler(change).sample(PROMPTS[:1], last_stage="sr16")["sr16"].astype(int)
        )
        assert np.abs(painted - reference).max() > 0, change


def test_eval_writes_a_page_with_scores(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of `evaluate.evaluate`, as it is called from Python."""
    out, evaluate_cascade, calls = built / "evaluation", evaluation.evaluate, []

    def recorded(*given: object, **named: object) -> object:
        calls.append((given, named, evaluate_cascade(*given, **named)))
        return calls[-1][2]

    monkeypatch.setattr(evaluation, "evaluate", recorded)
    evaluate.run(
        [
            str(built / "cascade"),
            "--out",
            str(out),
            "--images",
            "4",
            "--sweep",
            "1.0",
            "2.0",
            "--sweep-images",
            "4",
            "--grid",
            "4",
            "--batch-size",
            "8",
        ]
    )
    scores = json.loads((out / "scores.json").read_text())
    assert "sr16: from real 8-px images" in scores
    ceiling = scores["sr16: the cascade's images"]
    assert any(name.endswith("ceiling") for name in ceiling)
    for file in ("index.html", "report.md", "grid.png", "guidance.png", "losses.png"):
        assert (out / file).stat().st_size > 0
    for picture in ("grid.png", "guidance.png", "losses.png"):
        assert picture in (out / "index.html").read_text()
    for word in ("Seen", "Held out", "Ceiling"):
        assert f"{word}: " in (out / "index.html").read_text()
    settings = EvaluationSettings(images=4, sweep=(1.0, 2.0), sweep_images=4, grid=4, batch_size=8)
    cascade = built / "cascade"
    (((_, given), named, found),) = calls
    assert given == settings
    assert (named["title"], named["runs"]) == (f"Evaluation of {cascade}", cascade)
    assert found.to_markdown() == (out / "report.md").read_text()
    assert json.loads(json.dumps(found.scores())) == scores


def _train(built: Path, workdir: Path, *overrides: str) -> None:
    train.run([str(FOLDER / "base8.py"), "--workdir", str(workdir), *_data(built), *overrides])


def _data(built: Path) -> list[str]:
    return ["--data-dir", str(built / "data")]


def _state(run: Path) -> state.TrainState:
    experiment = run_dir.read_config(run)
    _, _, shapes = state.abstract_run(experiment)
    whole = mesh.replicated_sharding(mesh.build(auto_layout.choose_axes()))
    target = state.with_shardings(shapes, jax.tree.map(lambda _: whole, shapes))
    return checkpoints.Checkpoints(run, read_only=True).restore(target)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(built: Path, tmp_path: Path) -> None:
    constant = ("--optim.schedule", "constant")
    _train(built, tmp_path / "whole", *constant)
    _train(built, tmp_path / "parts", *constant, "--train.steps", "2")
    _train(built, tmp_path / "parts", *constant)
    whole, parts = (_state(tmp_path / run) for run in ("whole", "parts"))
    assert int(whole.step) == int(parts.step) == 4
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_another_models_folder_is_not_continued(built: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a run with another config: stage\.text_drop_rate"):
        _train(built, built / "cascade" / "base8", "--stage.text-drop-rate", "0.5")


@pytest.mark.slow
def test_steps_that_are_not_finite_are_skipped_and_too_many_stop_the_run(
    built: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _train(built, tmp_path, "--train.steps", "2")
    good, whole = _state(tmp_path), pipeline.to_device

    def without_a_number(batch: pipeline.Batch, *given: object, **named: object) -> pipeline.Batch:
        return whole(batch._replace(text=batch.text * np.float32(np.nan)), *given, **named)

    monkeypatch.setattr(pipeline, "to_device", without_a_number)
    with pytest.raises(
        anomalies.Diverged, match=r"1 steps in a row were skipped, the last of them 3"
    ):
        _train(built, tmp_path, "--train.max-skipped", "0")
    _train(built, tmp_path)
    assert "step 4 was skipped: its loss is not finite" in capsys.readouterr().out
    kept = _state(tmp_path)
    assert int(kept.step) == 4
    jax.tree.map(np.testing.assert_array_equal, good.replace(step=kept.step), kept)
    skipped = [json.loads(x) for x in (tmp_path / anomalies.FILE).read_text().splitlines()]
    assert [line["step"] for line in skipped] == [3, 3, 4]
    assert all(len(line["records"]) == 8 for line in skipped)
    assert skipped[0]["records"][0].startswith("train-00000")
    assert skipped[0] == skipped[1]  # the same records again
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["skipped"]) == (4, 2.0)
    capsys.readouterr()
    _train(built, tmp_path, "--train.steps", "2")
    said = capsys.readouterr().out
    assert f"base8: nothing to train: {tmp_path} is at step 4 already, past train.steps=2" in said


@pytest.mark.slow
def test_a_run_begins_with_anothers_weights(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(built / "cascade")  # its stage of the same name
    _train(built, tmp_path / "a", "--init-from", source, "--train.steps", "2")
    said = capsys.readouterr().out
    assert f"tensors from {source}/base8/checkpoints/4" in said
    _train(built, tmp_path / "a", "--init-from", source, "--train.steps", "4")
    said = capsys.readouterr().out
    assert "base8: resumed from step 2, with train.steps=4 instead of 2" in said
    assert f"; the weights of {source}/base8 were for its beginning" in said
    with pytest.raises(ValueError, match=r"none of its tensors fits this config:\n  extra"):
        _train(built, tmp_path / "b", "--init-from", "shapes/base16")
    with pytest.raises(FileNotFoundError, match=r"--init-from nowhere: .*embedded cascades: emoji"):
        _train(built, tmp_path / "b", "--init-from", "nowhere")
    with pytest.raises(ValueError, match="--init-take and --init-partial need --init-from"):
        _train(built, tmp_path / "b", "--init-partial")


def test_sr_stages_show_input_output_and_the_real_picture(built: Path, tmp_path: Path) -> None:
    shown = []

    class Shown:
        def images(self, step: int, images: np.ndarray) -> None:
            shown.append((step, images))

    (experiment,) = config.load(str(FOLDER / "sr16.py"))
    options = dataclasses.replace(experiment.train, sample_every=2)
    experiment = dataclasses.replace(experiment, train=options)
    pairs = store.open_store(built / "data" / "encoded" / "shapes-tiny" / "t5_1_1_tiny" / "train")
    (painter,) = imagen_jax.load(built / "cascade" / "sr16").stages
    paint = preview_hook.hook(experiment, pairs)
    params = painter.device_params()
    state = TrainState(step=0, params=params, ema=params, opt_state=())
    for step in (1, 2, 3, 4):
        paint(step, state, Shown())
    assert [step for step, _ in shown] == [2, 4]
    np.testing.assert_array_equal(shown[0][1], shown[1][1])
    low, painted, real = np.split(shown[0][1], 3, axis=2)
    assert real.shape == (preview_hook.SHOWN, 16, 16, 3)
    batch = next(
        pipeline.example_stream(
            pairs,
            stage=experiment.stage,
            data=experiment.data,
            share=pipeline.ProcessRows.whole(preview_hook.SHOWN),
            seed=options.seed,
        )
    ).batch
    np.testing.assert_array_equal(real, batch.pixels)
    np.testing.assert_array_equal(low[:, ::2, ::2], batch.low_pixels)
    assert np.abs(painted.astype(int) - real.astype(int)).max() > 0


@pytest.mark.slow
def test_samples_appear_in_tensorboard_and_the_empty_prompt_in_the_weights(
    built: Path, tmp_path: Path
) -> None:
    options = "--stage.model.text.null empty_prompt --train.steps 2 --train.sample-every 2"
    prompts = ["--train.sample-prompts", "a red circle on a white background"]
    command = ["tiny/base8", "--workdir", str(tmp_path), *_data(built), *options.split(), *prompts]
    train.run(command)
    events = b"".join(f.read_bytes() for f in tmp_path.glob("events.*"))
    assert b"samples" in events
    assert b"PNG" in events
    trained = _state(tmp_path)
    pairs = store.open_store(built / "data" / "encoded" / "shapes-tiny" / "t5_1_1_tiny" / "train")
    (expected,) = pairs.empty().array().astype(np.float32)
    for tree in (trained.params, trained.ema):
        (leaf,) = [
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if path[-1].key == null_caption.EMPTY_PROMPT
        ]
        np.testing.assert_allclose(leaf, expected, rtol=1e-6)


def test_a_run_remembers_its_encoder(built: Path, imagen) -> None:
    """And refuses to be continued or sampled with another."""
    text = imagen.experiments[0].text
    assert (text.identity, text.vocabulary) == (imagen.encoder.identity, imagen.encoder.vocabulary)
    run = built / "cascade" / "base8"
    with pytest.raises(ValueError, match=r"with identity .*, but text\.identity='0000'"):
        _train(built, run, "--text.identity", "0000")
    other = dataclasses.replace(imagen.encoder, digest="0")
    with pytest.warns(UserWarning, match=rf"with text encoder {text.identity}, but"):
        text_encoder._check_encoder(other, text, where=run)
    tokenizer = dataclasses.replace(imagen.encoder.tokenizer, model=b"")
    other = dataclasses.replace(imagen.encoder, tokenizer=tokenizer)
    with pytest.raises(ValueError, match=rf"with vocabulary {text.vocabulary}, but"):
        text_encoder._check_encoder(other, text, where=run)


def test_only_one_stage_of_a_cascade(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--only sr64: no such stage"):
        train.run(["tiny", "--workdir", str(tmp_path), "--only", "sr64"])
