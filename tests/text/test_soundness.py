"""An encoder that computes NaN or infinities is refused at its first encoding, with the cause."""

from pathlib import Path

import numpy as np
import pytest
from flax import serialization

from imagen_jax.data.store import records
from imagen_jax.imagen import Imagen
from imagen_jax.text.checkpoints import load, native
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.encoder_folders import EMBEDDED

TENSOR = "encoder.layers_1.mlp.wo.kernel"
NAMED = (
    rf"encoding of 'a red circle' is not finite: of its tensor {TENSOR}, 1 of .* copy or convert"
)


def _t5x(folder: Path, params) -> Path:
    """A T5X checkpoint with all inlined, and the embedded tokenizer."""
    tree = {"version": 3, "optimizer": {"state": {"step": 0}, "target": params}}
    (folder / "checkpoint_0").mkdir(parents=True)
    content = serialization.msgpack_serialize(tree)
    (folder / "checkpoint_0" / "checkpoint").write_bytes(content)
    model = EMBEDDED["t5_1_1_tiny"] / "spiece.model"
    (folder / "spiece.model").write_bytes(model.read_bytes())
    return folder


@pytest.fixture(params=[np.nan, np.inf])
def spoilt(request, tiny, tmp_path: Path) -> Path:
    """The embedded encoder with one value that is not finite."""
    encoder = dict(tiny[1]["encoder"])
    kernel = np.array(encoder["layers_1"]["mlp"]["wo"]["kernel"])
    kernel[3, 5] = request.param
    encoder["layers_1"] = encoder["layers_1"] | {
        "mlp": encoder["layers_1"]["mlp"] | {"wo": {"kernel": kernel}}
    }
    return _t5x(tmp_path / "spoilt", {**tiny[1], "encoder": encoder})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_caption_and_tensor_are_named(spoilt: Path, dtype: str) -> None:
    encoder = TextEncoder.load(str(spoilt), max_length=24, dtype=dtype)
    with pytest.raises(ValueError, match=NAMED):
        encoder.encode(["a red circle", "a blue square"])
    with pytest.raises(ValueError, match=NAMED):
        list(encoder.run(encoder.plan(["a red circle"])))
    with pytest.raises(ValueError, match=NAMED):
        Imagen((), encoder).encode(["a red circle"])


def test_a_long_caption_is_shortened(spoilt: Path) -> None:
    encoder = TextEncoder.load(str(spoilt), max_length=128)
    with pytest.raises(ValueError, match=r"'a red a red [a-z ]*'\.\.\. \d+ characters .* is not"):
        list(encoder.run(encoder.plan(["a red " * 18])))


def test_finite_weights_that_overflow(tiny, tmp_path: Path) -> None:
    encoder = dict(tiny[1]["encoder"])
    huge = np.full_like(encoder["encoder_norm"]["scale"], 3.4e38)
    folder = _t5x(
        tmp_path / "huge", {**tiny[1], "encoder": encoder | {"encoder_norm": {"scale": huge}}}
    )
    said = "its weights are finite, but it overflowed in {}; take {}"
    for dtype, remedy in (("float32", "a checkpoint"), ("bfloat16", "dtype float32")):
        found = TextEncoder.load(str(folder), max_length=24, dtype=dtype)
        with pytest.raises(ValueError, match=said.format(dtype, remedy)):
            found.encode(["a red circle"])


def test_no_store_is_begun(spoilt: Path, tmp_path: Path) -> None:
    from imagen_jax.cli import encode

    source = Path(__file__).parent.parent / "fixtures" / "faults" / "utf16_txt"
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=rf"encoding of '' is not finite: of its tensor {TENSOR}"):
        encode.run(
            [f"folder:{source}", "--encoder", str(spoilt), "--sizes", "16", "--out", str(out)]
        )
    assert not out.exists()


def test_nothing_is_converted(spoilt: Path, tmp_path: Path) -> None:
    from imagen_jax.cli import convert

    with pytest.raises(ValueError, match=rf"{TENSOR} has values that are not finite as float32"):
        convert.run(["text", str(spoilt), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_what_bfloat16_cannot_hold_is_not_converted(tiny, tmp_path: Path) -> None:
    params = {**tiny[1], "token_embedder": {"embedding": np.full((1152, 64), 3.4e38, np.float32)}}
    folder = _t5x(tmp_path / "large", params)
    sizes, layout = load.find_layout(folder)
    tokenizer = TextEncoder.load("t5_1_1_tiny", max_length=4).tokenizer
    with pytest.raises(ValueError, match=r"token_embedder\.embedding has .* finite as bfloat16"):
        native.write(
            tmp_path / "out", sizes, layout, tokenizer=tokenizer, dtype="bfloat16", progress=False
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "float32"])
def test_finite_is_told_of_what_is_stored(dtype) -> None:
    sound = np.array([[0.0, 1.0], [2.0, -3.0]], np.float32)
    assert records.round_encoding(sound, dtype).is_finite()
    for wrong in (np.nan, np.inf, -np.inf):
        with np.errstate(invalid="ignore"):  # of casts to int8
            kept = records.round_encoding(np.array([[0.0, wrong]], np.float32), dtype)
        assert not kept.is_finite()
