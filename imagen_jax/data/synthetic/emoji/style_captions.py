"""Captions of emoji that say how they are drawn: `a strawberry, outline drawing`."""

import re
from collections.abc import Iterable
from functools import cache

from imagen_jax.data.synthetic.emoji import emoji_names
from imagen_jax.data.synthetic.emoji.annotations import Annotation
from imagen_jax.data.synthetic.emoji.image_sets import EmojiStyle

KEYWORDS = 3  # of an emoji's keywords that a caption has, at most
VOWEL = re.compile(r"[aeio]|u(?!ni)|hour|honey?st", re.IGNORECASE)
# Names that take no article: of many, of what is not counted, and of what has a name of its own.
MANY = re.compile(r"(?:men|women|people|children|eyes|[a-z -]*[a-rtv-z]s)(?:$|[, ])")
UNCOUNTED = frozenset(
    (
        *(
            "bread",
            "rice",
            "popcorn",
            "bacon",
            "butter",
            "salt",
            "honey",
            "cooked rice",
            "spaghetti",
        ),
        *("broccoli", "garlic", "ginger root", "sushi", "oden", "shaved ice", "soft ice cream"),
        *("fog", "fire", "wood", "money", "snow", "sake", "tofu", "curry rice", "cloud with snow"),
        *(
            "radioactive",
            "foggy",
            "unlocked",
            "registered",
            "cooking",
            "no smoking",
            "no littering",
        ),
        *("rolling on the floor laughing", "no one under eighteen"),
        *("american football", "rugby football", "softball", "judo", "lacrosse", "mate"),
    )
)


def style_captions(text: str, style: EmojiStyle, annotation: Annotation | None = None) -> list[str]:
    """List an emoji's captions in a style, the main one first; each says the style.

    A keyword that is a name of another emoji is left out: no caption names two subjects.
    """
    names = [name.replace("’", "'") for name in emoji_names.captions(text)]  # as people type
    main = names[0]
    article = article_of(text)
    found = [f"{name}, {style.words}" for name in names]
    if article:
        found.append(f"{article} {main}, {style.words}")
    found.append(f"{article_before(style.adjective, article)}{style.adjective} {main}")
    if annotation is not None:
        keywords = _new_words(annotation.keywords, names)[:KEYWORDS]
        for added in (keywords, _new_words(annotation.category, names)):
            if added:
                found.append(f"{main}, {', '.join(added)}, {style.words}")
    return list(dict.fromkeys(found))


def article_of(text: str) -> str:
    """The article of an emoji's main name: `a`, `an`, or none."""
    name = emoji_names.captions(text)[0].partition(",")[0]
    if emoji_names.FLAGS.fullmatch(text):
        return "a"
    words = name.split()
    plain = name.islower() and name.replace(" ", "").isalpha() and name not in UNCOUNTED
    if not plain or MANY.match(name) or MANY.fullmatch(words[-1]):
        return ""
    return "an" if VOWEL.match(name) else "a"


def article_before(word: str, article: str) -> str:
    """The article of a phrase that begins with another word, with a space; "" where none."""
    return f"{'an' if VOWEL.match(word) else 'a'} " if article else ""


def _new_words(words: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those that add to an emoji's names, and name no emoji of their own."""
    said = {part.lower() for name in names for part in re.split(r"[ ,]+", name)}
    return [word for word in words if word not in all_names() and said.isdisjoint(word.split())]


@cache
def all_names() -> frozenset[str]:
    """Every name and alias of every emoji, in small letters."""
    known = emoji_names.known_emoji()
    return frozenset(name.lower() for text in known for name in emoji_names.captions(text))
