"""Values in sentences: short, and only of what can be written."""

import re

import pytest
from any_characters import CHARACTERS
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax import config

EVERY = st.text(CHARACTERS, max_size=30) | st.binary(max_size=30) | st.none()


@given(EVERY)
def test_what_is_shown_is_short_and_one_line(value) -> None:
    shown = config.shorten(value, most=20)
    assert len(shown) < 20 * 12 + 40  # a character is written as ten, at most
    assert shown.isprintable()
    shown.encode()


def test_of_a_long_text_its_length_is_told() -> None:
    assert config.shorten("ab" * 5000) == repr("ab" * 40) + "... (10,000 characters)"
    assert config.shorten("a red circle") == "'a red circle'"


@pytest.mark.parametrize("value", [None, 7, b"a red circle", ["a"]])
def test_what_is_no_string_is_named(value) -> None:
    said = re.escape(f"prompt 2 is {value!r}, of type {type(value).__name__}: ")
    with pytest.raises(ValueError, match=said):
        config.check_texts(["a", value], what="prompt")


@given(st.lists(st.text(CHARACTERS, max_size=8), max_size=3))
def test_texts_that_can_be_written_pass(texts: list[str]) -> None:
    try:
        "".join(f"{text}|" for text in texts).encode()
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match="is no Unicode text"):
            config.check_texts(texts, what="prompt")
    else:
        config.check_texts(texts, what="prompt")


def test_prompts_of_a_config_can_be_written() -> None:
    with pytest.raises(ValueError, match=r"train.sample_prompts: prompt 2, 'half \\ud83d', is no"):
        config.Train(sample_prompts=("a", "half \ud83d"))
