"""Caption cleaning takes what is no description, and leaves the rest."""

import pytest

from imagen_jax.text import tokenizer


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
    assert tokenizer.clean_caption(caption) == cleaned


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
    assert tokenizer.clean_caption(caption) == caption


@pytest.mark.parametrize("caption", ["&amp;lt;b&amp;gt;x", "<<b>b>", "ahttp://x.jpg <p", "&" * 50])
def test_cleaning_twice_is_cleaning_once(caption: str) -> None:
    once = tokenizer.clean_caption(caption)
    assert tokenizer.clean_caption(once) == once
