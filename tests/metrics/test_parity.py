"""Networks of full size against the field's own packages, on random weights: the extra `parity`."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import metric_oracles
import numpy as np
import pytest
import random_weights

from imagen_jax.metrics import clip, clip_weights, inception, inception_weights, networks
from imagen_jax.metrics.clip_tokenizer import ClipTokenizer
from imagen_jax.metrics.cmmd import cmmd
from imagen_jax.metrics.frechet import Moments, frechet_distance

pytestmark = pytest.mark.slow
pytest.importorskip("torch_fidelity")
pytest.importorskip("transformers")

LARGE = {
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "vision_config": {
        **{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
        **{"num_hidden_layers": 24, "patch_size": 14},
    },
}
MODELS = {
    "ViT-B/32": {"text_config": {}, "vision_config": {}},
    "ViT-B/16": {"text_config": {}, "vision_config": {"patch_size": 16}},
    "ViT-L/14": LARGE,
    "ViT-L/14-336": LARGE | {"vision_config": LARGE["vision_config"] | {"image_size": 336}},
}


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("side", [64, 256, 512])
def test_inception(side: int) -> None:
    tensors, images = random_weights.inception_tensors(1.0), random_weights.images(2, side)
    embed = jax.jit(inception.embed)
    found = np.asarray(embed(inception_weights.fold(tensors), jnp.asarray(images)))
    error = _error(found, metric_oracles.inception(tensors, images, divide=1))
    print(f"Inception, {side} px: {error:.1e}")
    assert error < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_clip(name: str, tmp_path: Path) -> None:
    folder = random_weights.write_clip(tmp_path, {"model_type": "clip"} | MODELS[name])
    loaded = clip_weights.load(folder)
    config = loaded.config
    images = random_weights.images(2, 256)
    tokenizer = ClipTokenizer.load(folder, context=config.context, vocabulary=config.vocabulary)
    ids = metric_oracles.clip_ids(folder, metric_oracles.TEXTS[:2])
    np.testing.assert_array_equal(tokenizer.tokenize(metric_oracles.TEXTS[:2])[0], ids)
    pixels = metric_oracles.clip_pixels(folder, images)
    wanted = metric_oracles.clip(folder, pixels, ids)
    small = [networks.resize_as_pillow(image, config.side) for image in images]
    x = networks.normalise(jnp.asarray(np.stack(small), jnp.float32) / 255, loaded.preprocessing)
    assert _error(np.asarray(x), pixels.transpose(0, 2, 3, 1)) < 1e-5
    image = jax.jit(lambda w, x: clip.embed_images(w, x, config=config))(loaded.weights, x)
    text = jax.jit(lambda w, t: clip.embed_texts(w, t, config=config))(
        loaded.weights, jnp.asarray(ids, jnp.int32)
    )
    errors = [_error(np.asarray(image), wanted["image"]), _error(np.asarray(text), wanted["text"])]
    cosines = [(i * t).sum(axis=-1) for i, t in ((image, text), (wanted["image"], wanted["text"]))]
    score = 100 * float(np.abs(np.asarray(cosines[0]) - cosines[1]).max())
    print(f"{name}: images {errors[0]:.1e}, texts {errors[1]:.1e}, CLIP score {score:.1e}")
    assert max(errors) < 1e-4
    assert score < 1e-4 * 100


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-B-32"])
def test_open_clip(name: str, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    activation = "quick_gelu" if name.endswith("quickgelu") else "gelu"
    parts = {f"{part}_config": {"hidden_act": activation} for part in ("text", "vision")}
    folder = random_weights.write_clip(tmp_path, {"model_type": "clip"} | parts, vocabulary=49408)
    loaded = clip_weights.load(folder)
    texts = ["a red circle, isn't it?", "42 small squares"]
    images = random_weights.images(2, 224)
    wanted = metric_oracles.open_clip(name, random_weights.clip_tensors(folder), images, texts)
    x = networks.normalise(jnp.asarray(images, jnp.float32) / 255, loaded.preprocessing)
    found = {
        "image": clip.embed_images(loaded.weights, x, config=loaded.config),
        "text": clip.embed_texts(
            loaded.weights, jnp.asarray(wanted.pop("ids"), jnp.int32), config=loaded.config
        ),
    }
    errors = {key: _error(np.asarray(found[key]), wanted[key]) for key in wanted}
    print(f"open_clip {name}: {errors}")
    assert max(errors.values()) < 1e-4


def test_tokens_of_the_published_vocabulary(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    metric_oracles.write_vocabulary(tmp_path)
    tokenizer = ClipTokenizer.load(tmp_path, context=77, vocabulary=49408)
    texts = [
        *metric_oracles.TEXTS,
        "naïve façade, Straße; it's 1,024 px (RGB) — “quoted” 中文 한국어",
    ]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    wanted = metric_oracles.clip_ids(tmp_path, texts)
    np.testing.assert_array_equal(tokenizer.tokenize(texts)[0], wanted)
    plain = ["a red circle, isn't it?", "42 small SQUARES  on a ground"]
    found, _ = tokenizer.tokenize(plain)
    for ours, theirs in zip(found, metric_oracles.open_clip_ids(plain), strict=True):
        end = int(np.argmax(theirs == 49407)) + 1
        np.testing.assert_array_equal(ours[:end], theirs[:end])


def test_fid_and_cmmd_of_full_width() -> None:
    first, second = (metric_oracles.features(seed, 3000, 2048) for seed in range(2))
    found = frechet_distance(*(Moments.empty(2048).add(x).gaussian() for x in (first, second)))
    wanted = metric_oracles.fid(first, second)
    print(f"FID {found:.9g}, SciPy {wanted:.9g}: {abs(found / wanted - 1):.1e}")
    assert found == pytest.approx(wanted, rel=1e-5)
    one, other = (
        x[:400, :768] / np.linalg.norm(x[:400, :768], axis=1)[:, None] for x in (first, second)
    )
    exact = metric_oracles.cmmd(one, other)
    print(
        f"CMMD {cmmd(one, other):.9g}, formula {exact:.9g}: {abs(cmmd(one, other) / exact - 1):.1e}"
    )
    assert cmmd(one, other) == pytest.approx(exact, rel=1e-5)
