"""Words that a cascade has never seen are known from the grammar of its captions."""

from typing import Any, ClassVar

import numpy as np
import pytest

from imagen_jax.data import known_words
from imagen_jax.data.sources.mixture import Mixture
from imagen_jax.data.synthetic.emoji import emoji_names
from imagen_jax.data.synthetic.shapes import captions, scenes


def test_every_word_of_a_caption_has_been_seen_and_no_other() -> None:
    rng = np.random.default_rng(0)
    grammar = scenes.Grammar()
    drawn = [captions.caption(scenes.sample_scene(rng, grammar=grammar), rng) for _ in range(3_000)]
    assert known_words.unknown_words(drawn, dataset="shapes/full") == []
    assert known_words.words_of(drawn) == known_words._words("shapes")


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


def test_words_are_compared_by_letters_not_by_bytes() -> None:
    seen = known_words.words_of(["Piñata, don't", "STRASSE"])
    assert seen == {"piñata", "don't", "strasse"}
    texts = ["pin\u0303ata", "DON’T", "Straße", "pin"]
    assert known_words.unknown_words(texts, dataset="", seen=seen) == ["pin"]


def test_a_mixture_has_the_words_of_its_sources_each_read_once() -> None:
    class Captions:
        skipped: ClassVar = {}

        def __init__(self, captions: list[str]) -> None:
            self.captions, self.read = captions, 0

        def __len__(self) -> int:
            return len(self.captions)

        def __getitem__(self, index: int) -> dict[str, Any]:
            self.read += 1
            return {"captions": [self.captions[index]]}

        def key(self, index: int) -> str:
            return str(index)

    few, many = Captions(["a red fox"]), Captions(["a cat"] * 50)
    words = known_words.words_of_source(Mixture((few, many), (9.0, 1.0)))
    assert words == {"a", "red", "fox", "cat"}
    assert (few.read, many.read) == (1, 50)
