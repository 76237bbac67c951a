"""Hugging Face's encoders, read from what transformers wrote, against what it computes."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as tensors

from imagen_jax.text import t5
from imagen_jax.text.checkpoints import huggingface, huggingface_files, load

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
    config, params = load.load_parameters(folder)
    text = np.asarray(run(params, reference["tokens"], reference["mask"], config=config))
    assert not text[~reference["mask"]].any()
    return text[reference["mask"]]


def _rewrite(folder: Path, change) -> None:
    file = folder / huggingface_files.FILE
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
    config, layout = load.find_layout(FOLDER / name)
    assert config == t5.T5Config(
        vocab=48, width=16, layers=2, heads=3, head_dim=4, mlp_width=24, gated=gated,
        bias_per_layer=bias_per_layer,
    )  # fmt: skip
    assert all(stored.bytes == 4 * np.prod(stored.shape) for stored, _ in layout)


def test_several_shards_of_mixed_dtypes(copied: Path, reference) -> None:
    whole = tensors.load_file(copied / huggingface_files.FILE)
    (copied / huggingface_files.FILE).unlink()
    shards: dict[str, dict] = {"model-00001-of-00002.safetensors": {}, "b.safetensors": {}}
    weight_map = {}
    for number, (name, array) in enumerate(sorted(whole.items())):
        file = sorted(shards)[number % 2]
        dtype = (np.float32, ml_dtypes.bfloat16, np.float16, np.float64)[number % 4]
        shards[file][name] = np.asarray(array, dtype)
        weight_map[name] = file
    for file, content in shards.items():
        tensors.save_file(content, copied / file)
    (copied / huggingface_files.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    expected = reference["v1_1"][reference["mask"]]
    np.testing.assert_allclose(_encoded(copied, reference), expected, rtol=0, atol=0.1)
    _, params = load.load_parameters(copied)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}

    (copied / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks b\.safetensors, which .*index"):
        load.load_parameters(copied)


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
        (lambda x: x | {WI.replace("wi_1", "b"): x[WI]}, "1.DenseReluDense.b.weight is unknown"),
        (lambda x: x | {WI: x[WI].astype(np.int8)}, rf"{WI} in .* is I8; F64, F32, F16, BF16"),
        (lambda x: {"weight": x[WI]}, "holds no T5 encoder, no block.0.* it has weight$"),
    ],
)
def test_a_wrong_tensor_is_named(copied: Path, change, says: str) -> None:
    _rewrite(copied, change)
    with pytest.raises(ValueError, match=says):
        load.load_parameters(copied)


def test_a_file_cut_short_is_named(copied: Path) -> None:
    file = copied / huggingface_files.FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a whole safetensors file"):
        load.load_parameters(copied)


def test_pickles_are_refused(copied: Path) -> None:
    (copied / huggingface_files.FILE).rename(copied / "pytorch_model.bin")
    with pytest.raises(ValueError, match="only safetensors can be read"):
        load.load_parameters(copied)


@pytest.mark.parametrize(
    ("name", "value"), [("feed_forward_proj", "gated-silu"), ("layer_norm_epsilon", 1e-5)]
)
def test_another_network_is_refused(copied: Path, name: str, value: object) -> None:
    config = json.loads((copied / huggingface.CONFIG).read_text())
    (copied / huggingface.CONFIG).write_text(json.dumps(config | {name: value}))
    with pytest.raises(ValueError, match=rf"config\.json: {name} is {value!r}"):
        load.load_parameters(copied)


def _move(found: dict, *, folder: Path, name: str, prefix: str = "") -> None:
    """The tensors, under a prefix, in another file and no other."""
    (folder / huggingface_files.FILE).unlink()
    tensors.save_file({prefix + n: x for n, x in found.items()}, folder / name)


def _assert_equal(place: Path, reference, *, to: str = "v1_1") -> None:
    expected = reference[to][reference["mask"]]
    np.testing.assert_allclose(_encoded(place, reference), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    "name", ["model.fp16.safetensors", "t5xxl_fp16.safetensors", "x.safetensors"]
)
@pytest.mark.parametrize("prefix", ["", "text_encoders.t5xxl.transformer.", "module.", "encoder."])
def test_the_only_file_is_read_whatever_its_name_and_prefix(
    copied: Path, reference, name: str, prefix: str
) -> None:
    whole = tensors.load_file(copied / huggingface_files.FILE)
    _move(whole, folder=copied, name=name, prefix=prefix)
    (copied / f"._{name}").write_bytes(b"what macOS leaves")
    (copied / huggingface.CONFIG).unlink()
    _assert_equal(copied, reference)
    _assert_equal(copied / name, reference)


@pytest.mark.parametrize("prefix", ["", "text_encoder."])
def test_a_stack_that_was_saved_alone(copied: Path, reference, prefix: str) -> None:
    whole = tensors.load_file(copied / huggingface_files.FILE)
    stack = {n.removeprefix("encoder."): x for n, x in whole.items() if n.startswith("encoder.")}
    stack["embed_tokens.weight"] = whole["shared.weight"]
    _move(stack, folder=copied, name="stack.safetensors", prefix=prefix)
    _assert_equal(copied, reference)


@pytest.mark.parametrize("form", ["index.fp16", "no index", "no index, older"])
def test_shards_of_a_variant(copied: Path, reference, form: str) -> None:
    whole = tensors.load_file(copied / huggingface_files.FILE)
    (copied / huggingface_files.FILE).unlink()
    pattern = "model-{}.fp16.safetensors" if "older" in form else "model.fp16-{}.safetensors"
    files = [pattern.format(f"0000{n}-of-00002") for n in (1, 2)]
    where = {name: files[number % 2] for number, name in enumerate(sorted(whole))}
    for file in files:
        tensors.save_file({n: whole[n] for n, f in where.items() if f == file}, copied / file)
    if form == "index.fp16":
        index = copied / "model.safetensors.index.fp16.json"
        index.write_text(json.dumps({"weight_map": where}))
        # Comes along with the variant, without its shards.
        (copied / huggingface_files.INDEX).write_text(
            json.dumps({"weight_map": {"a": "a.safetensors"}})
        )
    _assert_equal(copied, reference)
    (copied / files[1]).unlink()
    (copied / huggingface_files.INDEX).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=f"lacks {files[1]}"):
        load.load_parameters(copied)


def test_of_several_files_that_with_a_t5_is_read(copied: Path, reference) -> None:
    whole = tensors.load_file(copied / huggingface_files.FILE)
    _move(whole, folder=copied, name="t5xxl_fp16.safetensors")
    clip = {"text_model.encoder.layers.0.mlp.fc1.weight": np.zeros((2, 2), np.float32)}
    tensors.save_file(clip, copied / "clip_l.safetensors")
    _assert_equal(copied, reference)
    shutil.copy(copied / "t5xxl_fp16.safetensors", copied / "t5xxl_bf16.safetensors")
    with pytest.raises(
        ValueError, match=r"several .*t5xxl_bf16\.safetensors, t5xxl_fp16.*give one"
    ):
        load.load_parameters(copied)
    _assert_equal(copied / "t5xxl_bf16.safetensors", reference)


def _save_bytes(found: dict[str, tuple[str, list[int], bytes]], file: Path) -> None:
    """Tensors of any dtype, which NumPy may not have."""
    header, data = {}, b""
    for name, (dtype, shape, content) in found.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _bytes_of(found: dict[str, np.ndarray]) -> dict[str, tuple[str, list[int], bytes]]:
    return {n: ("F32", list(x.shape), x.tobytes()) for n, x in found.items()}


def test_what_is_no_encoders_is_not_read(copied: Path, reference) -> None:
    """A tokenizer, a decoder and a head of any dtype; `unused` names them."""
    found = _bytes_of(tensors.load_file(copied / huggingface_files.FILE))
    others = {
        "decoder.block.0.layer.0.SelfAttention.q.weight": ("F8_E4M3", [2, 2], bytes(4)),
        "lm_head.weight": ("I64", [2], bytes(16)),
        "scaled_fp8": ("F8_E4M3", [2], bytes(2)),
        "spiece_model": ("U8", [5], b"model"),
    }
    _save_bytes(others | found, copied / huggingface_files.FILE)
    _assert_equal(copied, reference)
    assert huggingface.unused_tensors(copied) == sorted(others)
    rows, columns = found[WI][1]
    few = found | {WI: ("F8_E4M3", [rows, columns], bytes(rows * columns))}
    _save_bytes(few, copied / huggingface_files.FILE)
    with pytest.raises(ValueError, match=rf"{WI} in .* is F8_E4M3; .* can be read: take the same"):
        load.load_parameters(copied)


def test_two_encoders_in_one_file_are_told(copied: Path) -> None:
    _rewrite(copied, lambda x: x | {f"b.{n}": a for n, a in x.items()})
    with pytest.raises(ValueError, match=r"several T5 encoders, under 'b\.encoder\.', 'encoder\.'"):
        load.load_parameters(copied)


def test_a_bias_is_not_left_out_silently(copied: Path) -> None:
    _rewrite(copied, lambda x: x | {WI.replace("weight", "bias"): x[WI][0].copy()})
    with pytest.raises(ValueError, match=r"wi_1\.bias is unknown"):
        load.load_parameters(copied)


@pytest.mark.parametrize("name", ["../v1_1/model.safetensors", "/etc/passwd", "a\x1b[2J", 3, None])
def test_an_index_names_files_of_its_folder(copied: Path, name: object) -> None:
    index = copied / huggingface_files.INDEX
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(
        ValueError, match=r"index\.json's weight_map is .* which is no name"
    ) as told:
        load.find_layout(copied)
    assert str(told.value).isprintable()


def test_an_index_names_no_link_out_of_its_folder(copied: Path) -> None:
    (copied / huggingface_files.FILE).rename(copied.parent / "elsewhere")
    (copied / "a.safetensors").symlink_to("../elsewhere")
    index = copied / huggingface_files.INDEX
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    with pytest.raises(
        ValueError, match=r"a\.safetensors, which .*index\.json names, is a link out"
    ):
        load.find_layout(copied)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 10**5, "is not JSON .nested more"),
        ("[]", "has no fields"),
        ('{"weight_map": []}', "has no weight_map"),
        ("\xff", "is not JSON"),
    ],
    ids=lambda text: text[:20],
)
def test_an_index_that_is_none_is_refused(copied: Path, text: str, says: str) -> None:
    (copied / huggingface_files.INDEX).write_text(text)
    with pytest.raises(ValueError, match=rf"index\.json ({says}).*: download it again"):
        load.find_layout(copied)
