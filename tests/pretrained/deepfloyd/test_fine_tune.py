"""Training that continues DeepFloyd IF's weights, by the commands of the guide."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from command_line import run_imagen
from deepfloyd_references import FOLDER
from PIL import Image

import imagen_jax
from imagen_jax import config
from imagen_jax.data.pipeline import LoadExample
from imagen_jax.data.store import store
from imagen_jax.io import run_dir
from imagen_jax.pretrained.deepfloyd import fine_tune, load
from imagen_jax.text.encoder import TextEncoder

CAPTIONS = ("A red cube", "a photo of a red cube on a BLUE table", "two owls")


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images and captions, encoded for the folder's networks."""
    images = tmp_path / "images"
    images.mkdir()
    draw = np.random.default_rng(0)
    for number, caption in enumerate(CAPTIONS):
        pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text(caption)
    out = tmp_path / "pairs"
    source = ("encode", f"folder:{images}", "--for", str(FOLDER), "--out", str(out))
    assert run_imagen(monkeypatch, *source, "--text-dtype", "float32") == 0
    return out


def _encoder() -> TextEncoder:
    encoder = imagen_jax.load(FOLDER, compile_cache=False).encoder
    assert isinstance(encoder, TextEncoder)
    return encoder


def test_pairs_hold_every_row_of_a_caption_as_prompts_have_it(pairs: Path) -> None:
    found, encoder = store.open_store(pairs), _encoder()
    kept = json.loads((pairs / "store.json").read_text())
    assert (kept["padding"], kept["lower_case"], kept["max_length"]) == ("encoded", True, 77)
    records = found.source()
    texts = {records[i].captions[0]: records[i].texts[0].array() for i in range(found.count)}
    wanted, _ = encoder.encode(CAPTIONS)
    for caption, rows in zip(CAPTIONS, wanted, strict=True):
        assert texts[caption].shape == (77, encoder.width)
        np.testing.assert_allclose(texts[caption], rows, atol=2e-5)
    empty, _ = encoder.encode([""])
    np.testing.assert_allclose(found.empty().array(), empty[0], atol=2e-5)


@pytest.mark.parametrize(("rate", "dropped"), [(0.0, False), (1.0, True)])
def test_a_dropped_caption_is_the_encoding_of_the_empty_one(
    pairs: Path, rate: float, dropped: bool
) -> None:
    stage = fine_tune.training_experiments([FOLDER / "if_I"])[0].stage
    found = store.open_store(pairs)
    example = LoadExample(found, found.source(), dataclasses.replace(stage, text_drop_rate=rate))(
        0, np.random.default_rng(0)
    )
    assert np.array_equal(example.text, found.empty().array()) is dropped


def test_the_loss_is_that_of_the_noise_unless_asked_otherwise() -> None:
    for experiment in fine_tune.training_experiments(load.find_pipelines(FOLDER)):
        assert experiment.stage.diffusion.variance == "fixed"
        assert experiment.stage.sampler.stochasticity == 0.0
        assert experiment.text.padding == "encoded"


def _weights(folder: Any) -> dict[str, np.ndarray]:
    stage = imagen_jax.load(folder, compile_cache=False).stages[0]
    flat = jax.tree_util.tree_leaves_with_path(stage.device_params())
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in flat}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "stage", "more"),
    [
        ("if_I", "deepfloyd_1", ()),
        ("if_II", "deepfloyd_2", ("--stage.diffusion.variance", "learned_range")),
    ],
)
def test_a_run_continues_the_weights_and_samples(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str, stage: str, more: tuple[str, ...]
) -> None:
    run, folder = pairs.parent / "run", FOLDER / pipeline
    text = ("--text.encoder", str(FOLDER / "if_I" / "text_encoder"))
    steps = ("--train.steps", "2", "--train.batch-size", "8", "--optim.warmup-steps", "1")
    command = ("train", str(folder), "--init-from", str(FOLDER), "--pairs", str(pairs))
    assert run_imagen(monkeypatch, *command, "--workdir", str(run), *text, *steps, *more) == 0
    kept = run_dir.read_config(run)
    assert kept.stage.name == stage
    assert kept.stage.diffusion.variance == (more[1] if more else "fixed")
    before, after = _weights(folder), _weights(run)
    assert before.keys() == after.keys()
    moved = {name: float(np.abs(after[name] - array).max()) for name, array in before.items()}
    assert 0 < max(moved.values()) < 1e-3  # two steps from the published weights, no others
    trained = imagen_jax.load(run, compile_cache=False).with_samplers(
        [(None, {"timesteps": (999, 500, 0)})]
    )
    side = kept.stage.low_size
    low = None if side is None else np.full((1, side, side, 3), 100, np.uint8)
    images = trained.sample(["a red cube"], low_res=low)[stage]
    assert images.shape[1:] == (kept.stage.size, kept.stage.size, 3)
    assert isinstance(kept.stage.model, config.DeepFloydUNet)


@pytest.mark.slow
def test_adapters_are_trained_on_a_folder(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, folder = pairs.parent / "run", FOLDER / "if_I"
    steps = ("--train.steps", "2", "--train.batch-size", "8", "--optim.warmup-steps", "0")
    command = ("train", str(folder), "--init-from", str(FOLDER), "--pairs", str(pairs))
    adapters = ("--lora.rank", "2", "--optim.learning-rate", "1e-3")
    assert run_imagen(monkeypatch, *command, "--workdir", str(run), *steps, *adapters) == 0
    before, after = _weights(folder), _weights(run)
    moved = {name for name, array in before.items() if not np.array_equal(after[name], array)}
    assert moved
    assert all("attn_" in name and "kernel" in name for name in moved)
    merged = imagen_jax.with_lora(imagen_jax.load(folder, compile_cache=False), run)
    found = jax.tree_util.tree_leaves_with_path(merged.stages[0].device_params())
    for path, array in found:
        np.testing.assert_array_equal(array, after[jax.tree_util.keystr(path)])
