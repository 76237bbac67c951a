"""Ids equal the reference T5's; truncation keeps eos and says what it drops."""

import io

import numpy as np
import pytest
import sentencepiece
from any_characters import CHARACTERS
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax.text.encoder_folders import EMBEDDED
from imagen_jax.text.tokenizer import Tokenizer

CAPTION = "a small red circle to the left of a large blue square"  # 13 pieces


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(EMBEDDED["t5_1_1_tiny"] / "spiece.model")


def test_ids_and_mask_equal_the_reference(tokenizer, reference) -> None:
    tokens, text_mask = tokenizer.tokenize(reference["captions"].tolist(), max_length=24)
    np.testing.assert_array_equal(tokens, reference["input_tokens"])
    np.testing.assert_array_equal(text_mask, reference["mask"])
    assert (tokens.dtype, text_mask.dtype) == (np.int32, np.bool_)
    assert tokenizer.size == 1100


def test_ids_are_neither_padded_nor_truncated(tokenizer, reference) -> None:
    assert tokenizer.ids("") == [1]
    assert tokenizer.ids(CAPTION) == reference["input_tokens"][0, :14].tolist()
    long = tokenizer.ids(str(reference["captions"][1]))
    assert len(long) > 24
    assert long[:23] == reference["input_tokens"][1, :23].tolist()
    assert long[-1] == 1


@pytest.mark.parametrize("max_length", [1, 2, 13, 14, 15])
def test_truncation_keeps_the_beginning_and_eos(tokenizer, max_length: int) -> None:
    tokens, text_mask = tokenizer.tokenize([CAPTION], max_length=max_length)
    whole = tokenizer.ids(CAPTION)
    kept = min(max_length, 14)
    assert tokens[0, :kept].tolist() == [*whole[: kept - 1], 1]
    assert text_mask.sum() == kept
    assert not tokens[0, kept:].any()


@pytest.mark.parametrize(
    ("max_length", "lost"), [(14, ""), (13, "square"), (12, "blue square"), (1, CAPTION)]
)
def test_lost_names_the_text_that_truncation_drops(tokenizer, max_length: int, lost: str) -> None:
    assert tokenizer.cut_text(CAPTION, max_length=max_length) == lost


def test_lost_spells_unknown_characters(tokenizer) -> None:
    assert tokenizer.cut_text("red {grün}", max_length=2) == "{grün}"
    assert tokenizer.cut_text("", max_length=1) == ""


def test_no_caption_gives_no_row(tokenizer) -> None:
    tokens, text_mask = tokenizer.tokenize([], max_length=5)
    assert tokens.shape == text_mask.shape == (0, 5)


def test_refusals_name_the_value(tokenizer) -> None:
    with pytest.raises(ValueError, match="max_length=0"):
        tokenizer.tokenize([CAPTION], max_length=0)
    with pytest.raises(TypeError, match="'red'"):
        tokenizer.tokenize("red", max_length=4)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_broken_model_is_refused(tmp_path, content: bytes) -> None:
    path = tmp_path / "spiece.model"
    with pytest.raises(FileNotFoundError, match=r"spiece\.model"):
        Tokenizer.load(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"spiece\.model .*copy it again"):
        Tokenizer.load(path)


def test_a_model_without_eos_is_refused(tmp_path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red circle", "a blue square"] * 4),
        model_writer=model,
        vocab_size=20,
        eos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    with pytest.raises(ValueError, match="end-of-sentence"):
        Tokenizer.load(tmp_path / "spiece.model")


NOT_UNICODE = ["\udcff circle", "half \ud83d", "\ude00"]


@pytest.mark.parametrize("text", NOT_UNICODE)
@pytest.mark.parametrize(
    "call",
    [
        lambda t, text: t.ids(text),
        lambda t, text: t.lengths(["a", text]),
        lambda t, text: t.tokenize(["a", text], max_length=4),
        lambda t, text: t.cut_text(text, max_length=4),
        lambda t, text: t.unknown_pieces(text),
    ],
)
def test_what_is_no_unicode_is_named(tokenizer, call, text: str) -> None:
    with pytest.raises(
        ValueError, match=r"caption \d, '.*is no Unicode text: .*; write it in UTF-8"
    ):
        call(tokenizer, text)


@given(st.text(CHARACTERS, max_size=20))
def test_any_text_is_tokenised_or_refused_by_a_sentence(tokenizer, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match="no Unicode text"):
            tokenizer.ids(text)
    else:
        assert tokenizer.ids(text)[-1] == 1


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("a red circle", True, []),
        ("", True, []),
        ("  ", True, []),
        ("🔴", False, ["🔴"]),
        ("圆", False, ["圆"]),
        ("{", False, ["{"]),
        ("圆 {", False, ["圆", "{"]),
        ("a red 圆", True, ["圆"]),
    ],
)
def test_what_is_outside_the_vocabulary(tokenizer, text: str, known: bool, unknown: list) -> None:
    assert tokenizer.knows_any(text) == known
    assert tokenizer.unknown_pieces(text) == unknown
