"""Hugging Face's encoders, read from what transformers wrote, against what it computes."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as tensors

from imagen_jax.text import hf_checkpoint, loading, t5

FOLDER = Path(__file__).parent / "fixtures" / "hugging_face"
MODELS = ("v1_0", "v1_1", "umt5")
ATOL = 2e-5
WI = "encoder.block.1.layer.1.DenseReluDense.wi_1.weight"

run = jax.jit(t5.encode, static_argnames=("config", "dtype"))


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    """Tokens, their mask and what transformers made of them; see make_hugging_face.py."""
    with np.load(FOLDER / "reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A v1.1 encoder to change."""
    return shutil.copytree(FOLDER / "v1_1", tmp_path / "v1_1")


def _encoded(folder: Path, reference) -> np.ndarray:
    config, params = loading.load(folder)
    text = np.asarray(run(params, reference["tokens"], reference["mask"], config=config))
    assert not text[~reference["mask"]].any()
    return text[reference["mask"]]


def _rewrite(folder: Path, change) -> None:
    file = folder / hf_checkpoint.FILE
    tensors.save_file(change(tensors.load_file(file)), file)


@pytest.mark.parametrize("name", MODELS)
def test_encodings_equal_transformers(reference, name: str) -> None:
    expected = reference[name][reference["mask"]]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(_encoded(FOLDER / name, reference), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("name", "gated", "bias_per_layer"),
    [("v1_0", False, False), ("v1_1", True, False), ("umt5", True, True)],
)
def test_the_network_is_read_from_its_tensors(name: str, gated: bool, bias_per_layer: bool) -> None:
    config, layout = loading.inspect(FOLDER / name)
    assert config == t5.T5Config(
        vocab=48, width=16, layers=2, heads=3, head_dim=4, mlp_width=24, gated=gated,
        bias_per_layer=bias_per_layer,
    )  # fmt: skip
    assert all(stored.bytes == 4 * np.prod(stored.shape) for stored, _ in layout)


def test_several_shards_of_mixed_dtypes(copied: Path, reference) -> None:
    whole = tensors.load_file(copied / hf_checkpoint.FILE)
    (copied / hf_checkpoint.FILE).unlink()
    shards: dict[str, dict] = {"model-00001-of-00002.safetensors": {}, "b.safetensors": {}}
    weight_map = {}
    for number, (name, array) in enumerate(sorted(whole.items())):
        file = sorted(shards)[number % 2]
        dtype = (np.float32, ml_dtypes.bfloat16, np.float16, np.float64)[number % 4]
        shards[file][name] = np.asarray(array, dtype)
        weight_map[name] = file
    for file, content in shards.items():
        tensors.save_file(content, copied / file)
    (copied / hf_checkpoint.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    expected = reference["v1_1"][reference["mask"]]
    np.testing.assert_allclose(_encoded(copied, reference), expected, rtol=0, atol=0.1)
    _, params = loading.load(copied)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}

    (copied / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks b\.safetensors, which .*index"):
        loading.load(copied)


@pytest.mark.parametrize("both", [True, False])
def test_the_embedding_has_two_names(copied: Path, reference, both: bool) -> None:
    def change(found: dict) -> dict:
        table = found["shared.weight"]
        kept = {n: x for n, x in found.items() if both or n != "shared.weight"}
        return kept | {"encoder.embed_tokens.weight": table}

    _rewrite(copied, change)
    expected = reference["v1_1"][reference["mask"]]
    np.testing.assert_allclose(_encoded(copied, reference), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: {n: a for n, a in x.items() if n != WI}, "layers_1.mlp.wi_1.kernel is missing"),
        (lambda x: x | {WI: x[WI][:, :3].copy()}, r"wi_1.kernel has shape \(3, 24\) instead of"),
        (lambda x: x | {WI.replace("wi_1", "b"): x[WI]}, "1.DenseReluDense.b is unknown"),
        (lambda x: x | {WI: x[WI].astype(np.int8)}, rf"{WI} in .* is I8; F64, F32, F16, BF16"),
        (lambda x: {"weight": x[WI]}, "holds no T5 encoder: it lacks token_embedder.embedding"),
    ],
)
def test_a_wrong_tensor_is_named(copied: Path, change, says: str) -> None:
    _rewrite(copied, change)
    with pytest.raises(ValueError, match=says):
        loading.load(copied)


def test_a_file_cut_short_is_named(copied: Path) -> None:
    file = copied / hf_checkpoint.FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        loading.load(copied)


def test_pickles_are_refused(copied: Path) -> None:
    (copied / hf_checkpoint.FILE).rename(copied / "pytorch_model.bin")
    with pytest.raises(ValueError, match="only safetensors can be read"):
        loading.load(copied)


@pytest.mark.parametrize(
    ("name", "value"), [("feed_forward_proj", "gated-silu"), ("layer_norm_epsilon", 1e-5)]
)
def test_another_network_is_refused(copied: Path, name: str, value: object) -> None:
    config = json.loads((copied / hf_checkpoint.CONFIG).read_text())
    (copied / hf_checkpoint.CONFIG).write_text(json.dumps(config | {name: value}))
    with pytest.raises(ValueError, match=rf"config\.json: {name} is {value!r}"):
        loading.load(copied)
