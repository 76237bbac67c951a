"""Caption cleaning takes what is no description, and leaves the rest."""

import html
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax.text import cleaning


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("a <b>red</b> circle<br/>on paper", "a red circle on paper"),
        ("a cat &amp; a dog", "a cat & a dog"),
        ("a cat &amp;amp;amp; a dog", "a cat & a dog"),
        ("&lt;i&gt;Vase&lt;/i&gt;", "Vase"),
        ("Sunset  over\tthe\nsea ", "Sunset over the sea"),
        ("see https://example.com/a?b=c now", "see now"),
        ("WWW.EXAMPLE.COM shop", "shop"),
        ("mail me@example.org please", "mail please"),
        ("IMG_0231.JPG", ""),
        ("a dog, dog-01.webp", "a dog,"),
        ("zero\u200bwidth\ufeff", "zero width"),
        ("", ""),
    ],
)
def test_noise_is_taken_away(caption: str, cleaned: str) -> None:
    assert cleaning.clean_caption(caption) == cleaned


@pytest.mark.parametrize(
    "caption",
    [
        "A Red circle, 'left' of 3 < 5 & 7 > 2 squares!",
        "naïve café № 5 😀",
        "a < b > c",
        "p. 3 @home",
    ],
)
def test_descriptions_stay_as_they_are(caption: str) -> None:
    assert cleaning.clean_caption(caption) == caption


@pytest.mark.parametrize("caption", ["&amp;lt;b&amp;gt;x", "<<b>b>", "ahttp://x.jpg <p", "&" * 50])
def test_cleaning_twice_is_cleaning_once(caption: str) -> None:
    once = cleaning.clean_caption(caption)
    assert cleaning.clean_caption(once) == once


PARTS = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "@",
        "-",
        "+",
        "_",
        " ",
        "www.",
        "http://",
        "https://",
        ".jpg",
        ".PNG",
        "é",
        "&amp;",
        "&lt;",
        "<b>",
        "</a>",
        "&",
        "\n",
        "\0",
        "圆",
        "/",
        "!",
        "x@y.z",
        "foo.svg",
        ".pdfs",
    ]
)
NOISE = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"</?[a-z!][^<>]{0,200}>",
        r"(?:https?://|www\.)\S+|\b[\w.+-]+@[\w-]+\.[\w.-]+\b",
        r"\b\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|pdf)\b",
        r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]",
        r"\s+",
    )
]


@given(st.lists(PARTS, max_size=14).map("".join))
def test_it_is_what_plain_expressions_find(caption: str) -> None:
    """Which take forever for some captions."""
    wanted, before = caption, None
    while wanted != before:
        before, wanted = wanted, html.unescape(wanted)
        for noise in NOISE:
            wanted = noise.sub(" ", wanted)
        wanted = wanted.strip()
    assert cleaning.clean_caption(caption) == wanted


@pytest.mark.parametrize(
    "unit",
    [
        "a.",
        "a",
        "@",
        "a@",
        "a@a.",
        "a+",
        "é.@",
        "<a",
        "<a ",
        "a-",
        "www.",
        "http",
        "x.jp",
        "x.jpg",
        "amp;",
        "&amp;",
        "&#38;",
        "#38;",
        "&",
        "\x00",
        ".",
        "圆.",
        "a.jpg ",
        "a@b.c-",
        "ampamp",
    ],
)
def test_no_caption_takes_long(unit: str) -> None:
    caption = "&" + unit * ((1 << 17) // len(unit))
    start = time.process_time()
    cleaning.clean_caption(caption)
    assert time.process_time() - start < 5
