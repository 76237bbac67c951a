"""The metrics' networks against numbers of the field's own, on narrow random weights."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import metric_oracles
import numpy as np
import pytest
import random_weights
from safetensors.numpy import load_file, save_file

from imagen_jax.metrics import clip, clip_config, clip_weights, inception, inception_weights
from imagen_jax.metrics.clip_tokenizer import ClipTokenizer

REFERENCES = np.load(Path(__file__).parents[1] / "fixtures" / "metrics" / "references.npz")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> clip_weights.LoadedClip:
    return clip_weights.load(random_weights.write_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def tokenizer(model) -> ClipTokenizer:
    return _load_tokenizer(model.folder, model)


def _load_tokenizer(folder: Path, model: clip_weights.LoadedClip) -> ClipTokenizer:
    sizes = model.config
    return ClipTokenizer.load(folder, context=sizes.context, vocabulary=sizes.vocabulary)


@pytest.fixture(scope="module")
def folded() -> inception.Weights:
    return inception_weights.fold(random_weights.inception_tensors())


def test_inception_is_torch_fidelitys(folded) -> None:
    images = jnp.asarray(random_weights.images(3, 64))
    found = np.asarray(jax.jit(inception.embed)(folded, images))
    assert _error(found, REFERENCES["inception"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_the_batch_does_not_change_inceptions_features(folded, batch: int) -> None:
    images = np.tile(random_weights.images(3, 64), (6, 1, 1, 1))[:batch]
    found = np.asarray(jax.jit(inception.embed)(folded, jnp.asarray(images)))
    wanted = np.tile(REFERENCES["inception"], (6, 1))[:batch]
    assert _error(found, wanted) < 1e-5


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference as a share of the largest number."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_strided_convolutions_stand_between_barriers(folded) -> None:
    pixels = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
    text = str(jax.make_jaxpr(inception.embed)(folded, pixels))
    halved = [conv for conv in inception.CONVS.values() if conv.stride > 1]
    assert text.count("optimization_barrier") == 2 * len(halved) == 10


def test_the_published_network_has_its_parameters() -> None:
    shapes = inception_weights.tensor_shapes()
    kernels = sum(np.prod(s) for name, s in shapes.items() if name.endswith("conv.weight"))
    assert (len(shapes), kernels) == (470, 21_751_136)
    out = jax.eval_shape(
        inception.embed,
        inception_weights.fold({n: np.zeros(s, np.float32) for n, s in shapes.items()}),
        jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.uint8),
    )
    assert out.shape == (2, 2048)


@pytest.mark.parametrize("size", [(5, 7), (299, 299), (400, 301)])
def test_resizing_is_tensorflow_1s(size: tuple[int, int]) -> None:
    height, width = size
    pixels = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    found = np.asarray(inception.resize(jnp.asarray(pixels), 299))
    if size == (299, 299):
        np.testing.assert_array_equal(found, pixels)
    y, x = np.float32(201 * (height / 299)), np.float32(77 * (width / 299))
    top, left = int(y), int(x)
    square = pixels[0, top : top + 2, left : left + 2].astype(np.float32)
    square = np.pad(square, [(0, 2 - square.shape[0]), (0, 2 - square.shape[1]), (0, 0)])
    rows = square[0] * (1 - (y - top)) + square[1] * (y - top)
    wanted = rows[0] * (1 - (x - left)) + rows[1] * (x - left)
    np.testing.assert_allclose(found[0, 201, 77], wanted, atol=1e-3)


def test_clip_is_transformers(model) -> None:
    pixels = jnp.asarray(REFERENCES["pixels"].transpose(0, 2, 3, 1))
    images = clip.embed_images(model.weights, pixels, config=model.config)
    assert _error(np.asarray(images), REFERENCES["image"]) < 1e-5
    tokens = jnp.asarray(REFERENCES["ids"], jnp.int32)
    texts = clip.embed_texts(model.weights, tokens, config=model.config)
    assert _error(np.asarray(texts), REFERENCES["text"]) < 1e-5


def test_what_follows_a_texts_end_does_not_count(model) -> None:
    tokens = np.array(REFERENCES["ids"], np.int32)
    end = int(np.argmax(tokens[0] == model.config.eos))
    changed = tokens.copy()
    changed[0, end + 1 :] = 7
    one, other = (
        clip.embed_texts(model.weights, jnp.asarray(t), config=model.config)
        for t in (tokens, changed)
    )
    np.testing.assert_allclose(one[0], other[0], atol=1e-6)


def test_tokens_are_transformers(tokenizer) -> None:
    tokens, cut = tokenizer.tokenize(metric_oracles.TEXTS)
    np.testing.assert_array_equal(tokens, REFERENCES["ids"])
    assert cut == sum(
        len(tokenizer.ids(text)) > tokenizer.context - 2 for text in metric_oracles.TEXTS
    )
    assert cut > 0


def test_a_tokenizer_json_is_the_two_files(model, tokenizer, tmp_path: Path) -> None:
    merges = [list(pair) for pair in tokenizer.ranks]
    whole = {"model": {"type": "BPE", "vocab": dict(tokenizer.pieces), "merges": merges}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    other = _load_tokenizer(tmp_path, model)
    for text in metric_oracles.TEXTS:
        assert other.ids(text) == tokenizer.ids(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "siglip"}, "model_type is 'siglip', and can be 'clip' only"),
        ({"projection_dim": "20"}, "projection_dim is '20', which is no whole number"),
        ({"text_config": {"num_attention_heads": 5}}, "hidden_size 512 is no multiple"),
        ({"vision_config": {"hidden_act": "relu"}}, "hidden_act is 'relu', and can be quick_gelu"),
        ({"vision_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers is 1,000,000 blocks"),
        ({"vision_config": {"patch_size": 100}}, "image_size 224 is no multiple of patch_size 100"),
    ],
)
def test_a_config_that_is_no_clips_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"} | change))
    with pytest.raises(ValueError, match=rf"config\.json: .*{said}"):
        clip_config.read_config(tmp_path)


def test_the_defaults_are_b32s(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    shapes = clip_weights.tensor_shapes(clip_config.read_config(tmp_path))
    assert sum(np.prod(shape) for shape in shapes.values()) == 151_277_312  # and logit_scale


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = random_weights.write_clip(tmp_path / "clip")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = "visual_projection.weight"
    save_file(tensors | {name: tensors[name][:5].copy()}, file)
    with pytest.raises(ValueError, match=rf"fit its config.json: {name} is \(5, 32\), wanted"):
        clip_weights.load(folder)
    save_file(tensors | {name: np.full_like(tensors[name], np.nan)}, file)
    with pytest.raises(ValueError, match=f"{name} has values that are not finite"):
        clip_weights.load(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"but pytorch_model\.bin, which is a pickle"):
        clip_weights.load(folder)


def test_inceptions_files_are_one(tmp_path: Path) -> None:
    tensors = random_weights.inception_tensors()
    save_file(tensors, tmp_path / "a.safetensors")
    loaded = inception_weights.load(tmp_path / "a.safetensors")
    wanted = inception_weights.fold(tensors)
    for name, (kernel, bias) in loaded.weights.items():
        np.testing.assert_array_equal(kernel, wanted[name][0])
        np.testing.assert_array_equal(bias, wanted[name][1])
    assert not loaded.published


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Mixed_7c.branch1x1.bn.bias", np.zeros(3, np.float32), r"is \(3,\), wanted \(40,\)"),
        ("Mixed_7c.branch1x1.bn.bias", None, "missing Mixed_7c.branch1x1.bn.bias"),
        ("Mixed_7c.branch1x1.bn.bias", np.full(40, np.inf, np.float32), "are not finite"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, name: str, value, said: str) -> None:
    tensors = random_weights.inception_tensors() | {name: value}
    file = tmp_path / "a.safetensors"
    save_file({n: t for n, t in tensors.items() if t is not None}, file)
    with pytest.raises(ValueError, match=rf"a\.safetensors.*{said}"):
        inception_weights.load(file)
