"""Values in sentences: short, and only of what can be written."""

import re

import pytest
from any_characters import CHARACTERS
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax import config
from imagen_jax.config import sentences

EVERY = st.text(CHARACTERS, max_size=30) | st.binary(max_size=30) | st.none()


@given(EVERY)
def test_what_is_shown_is_short_and_one_line(value) -> None:
    shown = config.shorten(value, most=20)
    assert len(shown) < 20 * 12 + 40  # a character is written as ten, at most
    assert shown.isprintable()
    shown.encode()


def test_of_a_long_text_its_length_is_told() -> None:
    shown = config.shorten("ab" * 5000)
    assert shown == f"{'ab' * 27!r}... 9,920 characters ...{'ab' * 13!r}"
    assert config.shorten("a red circle") == "'a red circle'"
    assert config.shorten(list(range(5000)), most=9) == "[0, 1,... 28,881 characters ...99]"


@given(st.text(CHARACTERS, max_size=400))
def test_a_long_text_keeps_both_ends(text: str) -> None:
    shown = sentences.abridge(text)
    assert shown == text or len(text) > sentences.LONGEST
    assert shown.startswith(text[:200])
    assert text.endswith(shown[-100:]) or shown == text
    assert len(shown) <= sentences.LONGEST + 40


def test_a_sentence_is_bounded_in_words_lines_and_number_of_lines() -> None:
    whole = "a.tar: it has 3 members:\n  one\n  two, " + "word " * 300
    assert sentences.bound(whole) == whole
    words = sentences.bound(f"/{'x' * 4000}/a.png: no such file: {'y ' * 3000}")
    assert words.startswith(f"/{'x' * 199}... 3,708 characters ...{'x' * 93}/a.png: no such file")
    assert len(words) < sentences.LONGEST_LINE + 40
    lines = sentences.bound("\n".join(["they differ:", *("  x" * 400 for _ in range(9000))]))
    assert lines.count("\n") == sentences.LINES
    assert lines.endswith("\n  and 7,801 more lines")


def test_of_many_texts_the_first_are_shown() -> None:
    assert sentences.join_texts(["a", "b"]) == "a, b"
    assert sentences.join_texts("abcdefghij") == "a, b, c, d, e, f, g, h and 2 more"
    assert sentences.join_texts("abc", separator="; ", most=2) == "a; b and 1 more"


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
