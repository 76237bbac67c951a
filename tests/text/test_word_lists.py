"""Words that a cascade has never seen are known from the grammar of its captions."""

import numpy as np
import pytest

from imagen_jax.data import known_words
from imagen_jax.data.synthetic.emoji import emoji_names
from imagen_jax.data.synthetic.shapes import captions, scenes


def test_every_word_of_a_caption_has_been_seen_and_no_other() -> None:
    rng = np.random.default_rng(0)
    grammar = scenes.Grammar()
    drawn = [captions.caption(scenes.sample_scene(rng, grammar=grammar), rng) for _ in range(3_000)]
    assert known_words.unknown_words(drawn, dataset="shapes/full") == []
    said = {word for text in drawn for word in known_words.WORD.findall(text)}
    assert said == known_words._words("shapes")


def test_every_name_of_an_emoji_has_been_seen() -> None:
    names = [name for text in emoji_names.known_emoji() for name in emoji_names.captions(text)]
    assert known_words.unknown_words(names, dataset="emoji/full") == []


@pytest.mark.parametrize(
    ("texts", "dataset", "found"),
    [
        (["a small elephant", "an elephant, red!"], "shapes/full", ["elephant"]),
        (["A Red Circle on a white background."], "shapes/quickstart", []),
        (["ein Kreis", "圆"], "shapes/tiny", ["ein", "Kreis", "圆"]),
        (["a solid circle"], "shapes/full", ["solid"]),
        ([""], "shapes/full", []),
        (["woman astronaut, dark skin tone"], "emoji/full", []),
        (["a zyzzyva"], "emoji/full", ["zyzzyva"]),
        (["anything"], "tars:/data", []),
        (["anything"], "", []),
    ],
)
def test_unseen_words(texts: list[str], dataset: str, found: list[str]) -> None:
    assert known_words.unknown_words(texts, dataset=dataset) == found
