"""The words of the embedded datasets' captions: an encoder knows more, a cascade has seen these."""

import functools
import re
from collections.abc import Iterable

from imagen_jax import extras

WORD = re.compile(r"[^\W_]+")


def unknown_words(texts: Iterable[str], *, dataset: str) -> list[str]:
    """Words that no caption of a dataset has, whatever their case; none where that is not known."""
    # Keywords in captions of emoji/styles are those of a package that need not be here.
    seen = _words("" if dataset == "emoji/styles" else dataset.partition("/")[0])
    found = dict.fromkeys(word for text in texts for word in WORD.findall(text))
    return [word for word in found if seen and word.lower() not in seen]


@functools.cache
def _words(family: str) -> frozenset[str]:
    captions: Iterable[str] = ()
    if family == "shapes":
        from imagen_jax.data.synthetic.shapes.captions import PHRASES

        captions = PHRASES
    elif family == "emoji" and extras.is_installed("emoji"):
        from imagen_jax.data.synthetic.emoji import emoji_names

        captions = (c for text in emoji_names.known_emoji() for c in emoji_names.captions(text))
    return frozenset(word.lower() for text in captions for word in WORD.findall(text))
