"""Splits of emoji in several styles: what is held out, by combination and by look."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from imagen_jax.data.synthetic.emoji import emoji_names, image_sets, near_duplicates
from imagen_jax.data.synthetic.emoji.near_duplicates import Look

HOLDING = 4  # of the subjects, one in so many has one of the styles held out
TONE, STYLE, BOTH, TWIN = "skin tone", "style", "skin tone and style", "near duplicate"


class Drawing(NamedTuple):
    """An image, and the emoji that look like it in that style."""

    style: str  # its name in STYLES
    emoji: tuple[str, ...]
    image: bytes  # PNG


class Place(NamedTuple):
    """A split, and why an image is held out."""

    split: str
    reason: str = ""  # TONE, STYLE, BOTH or TWIN


def held_style(subject: str) -> str:
    """The style that a subject is never seen in; "" for none. It depends on its code points."""
    digest = hashlib.sha256(f"style of {subject}".encode()).digest()
    rest, lucky = divmod(int.from_bytes(digest[:8], "big"), HOLDING)
    names = list(image_sets.STYLES)
    return "" if lucky else names[rest % len(names)]


def place_drawings(drawings: Sequence[Drawing], look: Look) -> list[Place]:
    """The split of each drawing, all of one dataset.

    Held out are the combinations of subject and skin tone that `emoji_names.split_of` says, in all
    styles; those of subject and style that `held_style` says, where the subject has a drawing in
    another style; and drawings that look like one of these. A drawing of several emoji is held out
    where one of them is.
    """
    styles = drawn_styles(drawings)
    places = [_place(drawing, styles) for drawing in drawings]
    held = [place.split == "held_out" for place in places]
    if not any(held):
        return places
    twins = near_duplicates.find_twins(look, look.part(held))
    return [
        Place("held_out", TWIN) if twin and not place.reason else place
        for place, twin in zip(places, twins, strict=True)
    ]


def drawn_styles(drawings: Iterable[Drawing]) -> Mapping[str, set[str]]:
    """The styles in which each subject is drawn."""
    found: dict[str, set[str]] = defaultdict(set)
    for drawing in drawings:
        for text in drawing.emoji:
            found[emoji_names.combination(text)[0]].add(drawing.style)
    return found


def held_first(drawing: Drawing, place: Place) -> tuple[str, ...]:
    """A drawing's emoji, one of the combination that it is held out for before the others."""
    in_other_tones = [emoji_names.split_of(text) != "held_out" for text in drawing.emoji]
    in_other_style = [
        held_style(emoji_names.combination(text)[0]) != drawing.style for text in drawing.emoji
    ]
    keys = in_other_style if place.reason == STYLE else in_other_tones
    order = sorted(range(len(keys)), key=keys.__getitem__) if place.reason else range(len(keys))
    return tuple(drawing.emoji[index] for index in order)


def _place(drawing: Drawing, styles: Mapping[str, set[str]]) -> Place:
    subjects = {emoji_names.combination(text)[0] for text in drawing.emoji}
    by_tone = any(emoji_names.split_of(text) == "held_out" for text in drawing.emoji)
    by_style = any(held_style(s) == drawing.style and len(styles[s]) > 1 for s in subjects)
    if by_tone or by_style:
        return Place("held_out", BOTH if by_tone and by_style else TONE if by_tone else STYLE)
    return Place(emoji_names.split_of(drawing.emoji[0]))
