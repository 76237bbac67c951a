"""Emoji as sequences of code points: what they are called, and which split they belong to.

Names and aliases are those of the package `emoji`: Unicode's short names (CLDR), and what people
type between colons.
"""

import hashlib
import re
from functools import cache

import emoji

from imagen_jax.data.synthetic.emoji.emoji_font import VARIATION

TONES = tuple("🏻🏼🏽🏾🏿")  # Fitzpatrick 1-2, 3, 4, 5, 6, from light to dark
TONE_NAMES = ("light", "medium-light", "medium", "medium-dark", "dark")
PERSON, SIGNS = "🧑", ("\u200d♂", "\u200d♀", "\u200d➡")  # male, female, facing right
TO_PERSON = str.maketrans({"👨": PERSON, "👩": PERSON})
FLAGS = re.compile("[🇦-🇿]{2}|🏴[\U000e0020-\U000e007f]+")
# What names add after a colon, which the package writes as another underscore.
TRAIT = re.compile(
    f"_((?:{'|'.join(TONE_NAMES)})_skin_tone|bald|beard|(?:blond|curly|red|white)_hair)(?=_|$)"
)
VALIDATION = 40  # one emoji in so many, of those that no held-out combination has
HOLDING = 2  # of the subjects with one tone, one in so many has it held out in one of five


def known_emoji() -> tuple[str, ...]:
    """Every emoji that Unicode recommends, fully qualified, in an order as of shuffled cards."""
    qualified = emoji.STATUS["fully_qualified"]
    found = [text for text, data in emoji.EMOJI_DATA.items() if data["status"] == qualified]
    return tuple(sorted(found, key=_number))


@cache  # asked for in every style
def captions(text: str) -> tuple[str, ...]:
    """List the captions of an emoji, the main one first.

    A flag's main caption says that it is one; its name is its country's. Emoji with skin tones have
    the aliases of the one without, followed by the tones.
    """
    name, aliases = _name(text), _aliases(text)
    flag = [f"flag for {name}"] if FLAGS.fullmatch(text) else []
    toneless = _by_bare().get(_without_tones(_bare(text)), text)
    if toneless != text:
        different = dict.fromkeys(combination(text)[1])  # a couple of one tone has it named once
        tones = "".join(f", {TONE_NAMES[tone]} skin tone" for tone in different)
        aliases = [*aliases, *(alias + tones for alias in _aliases(toneless))]
    return tuple(dict.fromkeys([*flag, name, *aliases]))


@cache
def combination(text: str) -> tuple[str, tuple[int, ...]]:
    """An emoji's subject and its skin tones, 0 to 4.

    Men, women and persons share a subject, facing either side.
    """
    bare = _bare(text)
    subject = _without_tones(bare)
    for sign in SIGNS:
        subject = subject.replace(sign, "")
    return subject.translate(TO_PERSON), tuple(TONES.index(c) for c in bare if c in TONES)


@cache
def split_of(text: str) -> str:
    """The split of an emoji, which depends on nothing but its code points.

    Held out are combinations of subject and tones, of all genders together: one of the five tones
    of every second subject; and of each subject with two tones the pairs on a diagonal, one in
    five. So a subject is seen in its other tones, and a tone on other subjects.
    """
    subject, tones = combination(text)
    lucky, diagonal = divmod(_number(subject), len(TONES))
    code = sum((place + 1) * tone for place, tone in enumerate(tones)) % len(TONES)
    holds = len(tones) > 1 or (len(tones) == 1 and lucky % HOLDING == 0)
    if holds and code == diagonal:
        return "held_out"
    return "validation" if _number(text) % VALIDATION == 0 else "train"


def plainness(text: str) -> tuple[int, str]:
    """A short name is the plain one: `Norway` comes before `Svalbard & Jan Mayen`."""
    return len(captions(text)[0]), text


def _name(text: str) -> str:
    """An emoji's name as one says it: `woman astronaut, dark skin tone`."""
    name = emoji.EMOJI_DATA[text]["en"].strip(":")
    return TRAIT.sub(r", \1", name).replace("_", " ")


def _aliases(text: str) -> list[str]:
    found = emoji.EMOJI_DATA[text].get("alias", ())
    # One is `_1`: thumbs down, `-1`.
    return [re.sub("^_", "-", alias.strip(":")).replace("_", " ") for alias in found]


@cache
def _by_bare() -> dict[str, str]:
    return {_bare(text): text for text in known_emoji()}


def _bare(text: str) -> str:
    return text.replace(VARIATION, "")


def _without_tones(text: str) -> str:
    return "".join(c for c in text if c not in TONES)


def _number(text: str) -> int:
    """A number that looks random and is the same everywhere."""
    return int.from_bytes(hashlib.sha256(_bare(text).encode()).digest()[:8], "big")
