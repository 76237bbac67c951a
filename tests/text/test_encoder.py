"""The whole encoder: the embedded weights, batching that changes nothing, truthful refusals."""

import dataclasses
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.text import encoder, placement
from imagen_jax.text.checkpoints import lazy_tensors
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.encoder_folders import EMBEDDED

CAPTIONS = [
    "a small red circle to the left of a large blue square",
    "",
    "two green triangles on white paper with a thick black border around all of them",
    "a circle",
    "seven tiny glossy turquoise octahedra",
] * 3
ATOL = {"float32": 2e-5, "bfloat16": 8e-2}


@pytest.fixture(scope="module")
def embedded() -> TextEncoder:
    return TextEncoder.load("t5_1_1_tiny", max_length=24)


@pytest.mark.filterwarnings("ignore:the text encoder's vocabulary lacks '{', '}'")
def test_embedded_encoder_equals_t5x(embedded, reference) -> None:
    with pytest.warns(UserWarning, match=r"1 of 4 captions are longer .* 'a gigantic translucent"):
        text, text_mask = embedded.encode(reference["captions"].tolist())
    np.testing.assert_array_equal(text_mask, reference["mask"])
    expected = np.where(text_mask[..., None], reference["encoded_a"], 0)
    np.testing.assert_allclose(text, expected, rtol=0, atol=2e-5)
    assert (text.dtype, text_mask.dtype) == (np.float32, np.bool_)
    assert embedded.width == 64


def test_larger_embedded_encoder_equals_t5x(fixtures) -> None:
    with np.load(fixtures / "mini_reference.npz") as arrays:
        reference = dict(arrays)
    mini = TextEncoder.load("t5_1_1_mini", max_length=reference["mask"].shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one caption is cut on purpose
        text, text_mask = mini.encode(reference["captions"].tolist())
    np.testing.assert_array_equal(text_mask, reference["mask"])
    expected = np.where(text_mask[..., None], reference["encoded"], 0)
    np.testing.assert_allclose(text, expected, rtol=0, atol=2e-5)


def test_embedded_checkpoint_holds_the_encoder_alone() -> None:
    folder = EMBEDDED["t5_1_1_tiny"] / "checkpoint_1000"
    arrays = [path for path in folder.iterdir() if path.is_dir()]
    assert len(arrays) == 16
    assert all((path / ".zarray").is_file() for path in arrays)
    assert all(p.name.startswith(("target.encoder.", "target.token_embedder.")) for p in arrays)
    assert b"decoder" not in (folder / "checkpoint").read_bytes()


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_rows_do_not_depend_on_their_batch(embedded, batch_size: int) -> None:
    text, text_mask = embedded.encode(CAPTIONS, batch_size=batch_size)
    assert text.shape == (15, 24, 64)
    for row, caption in enumerate(CAPTIONS[:5]):
        alone, mask = embedded.encode([caption])
        for copy in range(row, 15, 5):
            np.testing.assert_allclose(text[copy], alone[0], rtol=0, atol=1e-5)
            np.testing.assert_array_equal(text_mask[copy], mask[0])
    assert not text[~text_mask].any()


@pytest.mark.parametrize(
    ("number", "batch_size", "shape"),
    [(5, 256, (8, 8)), (8, 256, (8, 8)), (300, 128, (128, 8)), (3, 2, (2, 8)), (1, 256, (1, 8))],
)
def test_few_shapes_are_compiled(embedded, monkeypatch, number, batch_size, shape) -> None:
    seen = set()

    def fake(params, tokens, text_mask, *, config, dtype, padding) -> np.ndarray:
        seen.add(tokens.shape)
        return np.zeros((*tokens.shape, config.width), np.float32)

    monkeypatch.setattr(encoder, "_encode", fake)
    embedded.encode(["a circle"] * number, batch_size=batch_size)
    assert seen == {shape}


def test_length_caps_the_last_bucket(embedded) -> None:
    short = replace(embedded, max_length=5)
    with pytest.warns(UserWarning, match=r"9 of 15 captions .* 5 tokens and were cut"):
        text, text_mask = short.encode(CAPTIONS)
    assert text.shape == (15, 5, 64)
    assert text_mask.sum(1).tolist() == [5, 1, 5, 3, 5] * 3
    assert short.cut_text("a small red circle to the left") == "to the left"
    assert short.cut_text("a circle") == ""


def test_no_caption_gives_no_row(embedded) -> None:
    text, text_mask = embedded.encode([])
    assert text.shape == (0, 24, 64)
    assert text_mask.shape == (0, 24)


def test_identity_is_of_weights_and_tokenizer(embedded) -> None:
    again = TextEncoder.load("t5_1_1_tiny", max_length=8)
    assert again.identity == embedded.identity
    assert len(embedded.identity) == 16
    assert TextEncoder.load("t5_1_1_tiny", max_length=8, dtype="bfloat16").digest == embedded.digest
    assert replace(embedded, digest=embedded.digest[::-1]).identity != embedded.identity
    tokenizer = replace(embedded.tokenizer, model=embedded.tokenizer.model + b"x")
    other = replace(embedded, tokenizer=tokenizer)
    assert other.identity != embedded.identity
    assert other.vocabulary != embedded.vocabulary == again.vocabulary


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.at[-1, -1].add(1e-3),
        lambda x: x[::-1],
        lambda x: x.reshape(2, -1),
    ],
)
def test_a_digest_is_of_every_value_in_its_place(change, monkeypatch) -> None:
    monkeypatch.setattr(lazy_tensors, "PIECE", 8)
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    found = lazy_tensors.digest_values(array)
    assert found == lazy_tensors.digest_values(np.asfortranarray(array).astype(np.float64))
    assert found != lazy_tensors.digest_values(np.asarray(change(jnp.asarray(array))))


def test_a_digest_knows_whose_values_they_are() -> None:
    one, other = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)
    digests = []
    for names in (("a", "b"), ("b", "a")):
        put = placement.Placer(
            mesh.build(
                auto_layout.choose_axes(devices=jax.devices()[:1]), devices=jax.devices()[:1]
            ),
            "float32",
        )
        put(names[0], one)
        put(names[1], other)
        digests.append(put.digest())
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("split", "holders", "dtype"),
    [
        ("captions", 1, "bfloat16"),
        ("captions", 8, "float32"),
        ("heads", 4, "bfloat16"),
        ("heads", 2, "float32"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("captions", 1, "float32"),
                ("captions", 8, "bfloat16"),
                ("heads", 4, "float32"),
                ("heads", 2, "bfloat16"),
            )
        ),
    ],
)
def test_split_over_devices_it_encodes_alike(embedded, monkeypatch, split, holders, dtype) -> None:
    monkeypatch.setattr(auto_layout, "_fsdp", lambda *_: holders)
    monkeypatch.setattr(placement, "LEAST_SHARD", 0)
    parts = TextEncoder.load("t5_1_1_tiny", max_length=24, dtype=dtype, split=split)
    assert parts.devices.size == 8
    for name in ("wi_0", "wo"):
        kernel = parts.params["encoder"]["layers_0"]["mlp"][name]["kernel"]
        assert kernel.dtype == dtype
        assert kernel.addressable_shards[0].data.size == kernel.size // holders
    assert parts.params["encoder"]["encoder_norm"]["scale"].dtype == np.float32
    for captions in (CAPTIONS[:3], CAPTIONS * 3):  # batches that the devices divide, and others
        text, text_mask = parts.encode(captions)
        expected, _ = embedded.encode(captions)
        np.testing.assert_allclose(text, expected, rtol=0, atol=ATOL[dtype])
    for index, packed in parts.run(parts.plan(captions)):
        assert packed.dtype == dtype
        wanted = expected[index][text_mask[index]]
        np.testing.assert_allclose(packed.astype(np.float32), wanted, rtol=0, atol=ATOL[dtype])
    if dtype == "bfloat16":
        assert np.abs(text - expected).max() > 1e-3


def test_with_heads_split_no_weight_is_gathered(embedded, monkeypatch) -> None:
    monkeypatch.setattr(auto_layout, "_fsdp", lambda *_: 4)
    parts = TextEncoder.load("t5_1_1_tiny", max_length=24, split="heads")
    tokens, mask = parts._placed([[5] * 24] * 2, 24)
    program = encoder._encode.lower(
        parts.params, tokens, mask, config=parts.config, dtype="float32"
    )
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather", program.compile().as_text())
    kernels = {str(x.shape).strip("()").replace(" ", "") for x in jax.tree.leaves(parts.params)}
    assert not kernels & set(gathered)


@pytest.mark.parametrize("batch_tokens", [1, 300, 2**14])
def test_packed_in_any_batch_captions_are_encoded_alike(embedded, batch_tokens: int) -> None:
    small = replace(embedded, batch_tokens=batch_tokens)
    text, text_mask = embedded.encode(CAPTIONS)
    plan = small.plan(CAPTIONS)
    assert plan.useful == text_mask.sum()
    seen = []
    for index, packed in small.run(plan):
        np.testing.assert_allclose(packed, text[index][text_mask[index]], rtol=0, atol=1e-5)
        seen.append(index)
    assert sorted(seen) == list(range(len(CAPTIONS)))


def test_cleaning_is_the_encoders_own(embedded) -> None:
    cleaned = replace(embedded, clean=True)
    assert cleaned.ragged_ids(["a <b>circle</b>  "]) == embedded.ragged_ids(["a circle"])
    assert embedded.ragged_ids(["a <b>circle</b>"]) != embedded.ragged_ids(["a circle"])
    assert (
        replace(cleaned, max_length=3).cut_text("a circle <br> to the <i>left</i>") == "to the left"
    )


def test_a_config_describes_its_encoder() -> None:
    text = config.Text(encoder="t5_1_1_mini", max_length=40, clean=True, dtype="bfloat16")
    made = TextEncoder.from_config(text)
    assert (made.max_length, made.clean, made.dtype, made.width) == (40, True, "bfloat16", 256)


@pytest.fixture
def copied(tmp_path) -> Path:
    return Path(shutil.copytree(EMBEDDED["t5_1_1_tiny"], tmp_path / "large"))


def test_a_folder_or_its_checkpoint_loads_alike(copied, embedded) -> None:
    for path in (copied, copied / "checkpoint_1000"):
        assert TextEncoder.load(str(path), max_length=24).identity == embedded.identity
    for place in (copied.parent / "other.model", copied.parent / "tokenizer" / "spiece.model"):
        place.parent.mkdir(exist_ok=True)  # beside it; or as diffusers lays it
        (found,) = [*copied.rglob("*.model"), *copied.parent.glob("*.model")]
        found.rename(place)
        assert TextEncoder.load(str(copied), max_length=24).identity == embedded.identity
    named = copied.parent / "elsewhere" / "vocabulary"
    named.parent.mkdir()
    place.rename(named)
    again = TextEncoder.load(str(copied), max_length=24, tokenizer=str(named))
    assert again.identity == embedded.identity


def test_tokenizer_faults_are_named(copied) -> None:
    shutil.copyfile(copied / "spiece.model", copied / "second.model")
    with pytest.raises(ValueError, match=r"several tokenizers \(second.model, spiece.model\)"):
        TextEncoder.load(str(copied), max_length=24)
    (copied / "second.model").unlink()
    (copied / "spiece.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"no SentencePiece \*.model file in .*large"):
        TextEncoder.load(str(copied), max_length=24)


def test_a_tokenizer_larger_than_the_embedding_is_refused(copied, tiny, monkeypatch) -> None:
    small = replace(tiny[0], vocab=1099)
    monkeypatch.setattr(encoder.load, "find_layout", lambda path: (small, ()))
    with pytest.raises(ValueError, match=r"1100 pieces, .* only 1099 rows"):
        TextEncoder.load(str(copied), max_length=24)


def test_refusals_name_the_value(embedded) -> None:
    with pytest.raises(FileNotFoundError, match=r"'t5_xxl'.*t5_1_1_tiny"):
        TextEncoder.load("t5_xxl", max_length=24)
    with pytest.raises(ValueError, match="max_length=0"):
        TextEncoder.load("t5_1_1_tiny", max_length=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        embedded.encode(["a circle"], batch_size=0)
    with pytest.raises(TypeError, match="'a circle'"):
        embedded.encode("a circle")


def test_parts_outside_the_vocabulary_are_told(embedded) -> None:
    with pytest.warns(UserWarning, match=r"^the text encoder knows nothing of '🔴', '圆 {': all"):
        embedded.encode(["a red circle", "🔴", "圆 {"])
    with pytest.warns(UserWarning, match=r"vocabulary lacks '圆', as in 'a red 圆';"):
        embedded.encode(["a red 圆"])


def test_a_long_loss_is_shortened(embedded) -> None:
    with pytest.warns(UserWarning, match=r"characters \.\.\.'[a-z ]*'$") as told:
        embedded.encode(["a red circle " * 800])
    assert len(str(told[0].message)) < 400


@pytest.mark.parametrize("clean", [False, True])
def test_captions_that_are_no_unicode_are_named(embedded, clean: bool) -> None:
    encoder = dataclasses.replace(embedded, clean=clean)
    for call in (encoder.encode, encoder.plan):
        with pytest.raises(ValueError, match=r"caption 2, '\\udcff', is no Unicode text"):
            call(["a", "\udcff"])
