"""The words of captions in training: an encoder knows more, a cascade has seen these."""

import contextlib
import functools
import re
import unicodedata
from collections.abc import Iterable

from tqdm import tqdm

from imagen_jax import extras
from imagen_jax.data.sources.base import Source
from imagen_jax.data.sources.mixture import Mixture
from imagen_jax.io.errors import CorruptDataError

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # don't is one word


def unknown_words(
    texts: Iterable[str], *, dataset: str, seen: frozenset[str] = frozenset()
) -> list[str]:
    """Words that no caption in training has, whatever their case; none where that is not known.

    `seen` are the words of those captions, as `words_of` makes them; where there are none, those of
    an embedded dataset.
    """
    # Keywords in captions of emoji/styles are those of a package that need not be here.
    seen = seen or _words("" if dataset == "emoji/styles" else dataset.partition("/")[0])
    found = dict.fromkeys(word for text in texts for word in _split(text))
    return [word for word in found if seen and _fold(word) not in seen]


def words_of(captions: Iterable[str]) -> frozenset[str]:
    """Return the words of captions in small letters, as `unknown_words` compares them."""
    return frozenset(_fold(word) for text in captions for word in _split(text))


def words_of_source(source: Source) -> frozenset[str]:
    """Return the words of the captions of a source's examples that can be read."""
    found: set[str] = set()
    if isinstance(source, Mixture):  # repeats examples
        return frozenset().union(*map(words_of_source, dict.fromkeys(source.sources)))
    for index in tqdm(range(len(source)), desc="words of captions", unit=" examples"):
        with contextlib.suppress(CorruptDataError):  # a caption that training leaves out, too
            found |= words_of(source[index]["captions"])
    return frozenset(found)


def _split(text: str) -> list[str]:
    return WORD.findall(unicodedata.normalize("NFKC", text))


def _fold(word: str) -> str:
    return word.casefold().replace("’", "'")


@functools.cache
def _words(family: str) -> frozenset[str]:
    captions: Iterable[str] = ()
    if family == "shapes":
        from imagen_jax.data.synthetic.shapes.captions import PHRASES

        captions = PHRASES
    elif family == "emoji" and extras.is_installed("emoji"):
        from imagen_jax.data.synthetic.emoji import emoji_names

        captions = (c for text in emoji_names.known_emoji() for c in emoji_names.captions(text))
    return words_of(captions)
