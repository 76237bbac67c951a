"""Captions: `caption` words a scene in one of several phrasings, `parse` reads it back."""

import re
from dataclasses import dataclass

import numpy as np

from imagen_jax.config import shorten
from imagen_jax.data.synthetic.shapes.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Shape,
    choose,
)

PREFIXES = ("", "a picture of ", "an image of ", "a drawing of ", "there is ", "we see ")
GROUNDS = (" on a {} background", " against a {} background", " with a {} backdrop", "")
FRONTED = "on a {} background there is "
SYNONYMS = {"grey": "gray", "big": "large", "little": "small"}  # read, and sometimes written
INVERSE = dict(zip(RELATIONS, ("below", "above", "to the right of", "to the left of"), strict=True))
DEFAULT_FILL = "solid"  # the fill that captions leave out
# All that `caption` puts together: every word of a caption is in one of them.
PHRASES = (
    *(*SHAPES, *COLOURS, *SIZES, *RELATIONS, *BACKGROUNDS, *SYNONYMS),
    *(fill for fill in FILLS if fill != DEFAULT_FILL),
    *(*PREFIXES, *(ground.format("") for ground in GROUNDS), FRONTED.format("")),
    *("a", "an", "and"),
)

# Chances in the freer wording; the plain one names size for one object and not for two.
NAMES_SIZE, JOINS_BY_AND, FRONTS_GROUND, TURNS_ROUND = 0.6, 0.1, 0.15, 0.3

_PREFIX = re.compile("|".join(re.escape(p) for p in PREFIXES if p))
_GROUND = re.compile(r",? (?:on an?|against an?|with an?) (\S+) (?:background|backdrop)$")
_FRONTED = re.compile(r"^on an? (\S+) background,? there is ")
_JOINT = re.compile(" (" + "|".join((*RELATIONS, "and")) + ") ")


@dataclass(frozen=True)
class ShapeSpec:
    """The attributes of one object that a caption names; None where it names none."""

    shape: str
    colour: str | None = None
    size: str | None = None
    fill: str = DEFAULT_FILL  # solid where no fill is named


@dataclass(frozen=True)
class Spec:
    """The content of a caption; `relation` is the first object's to the second."""

    background: str | None
    shapes: tuple[ShapeSpec, ...]
    relation: str | None = None


def caption(scene: Scene, rng: np.random.Generator, *, plain: float = 0.5) -> str:
    """A caption of the scene, in the plain wording with chance `plain`.

    Plain are `a large red circle on a white background` and `a red circle above a blue square on
    a white background`; the freer wordings may leave out size, ground or relation.
    """
    if rng.random() < plain:
        name_size = len(scene.shapes) == 1
        nouns = [_noun(shape, shape.size if name_size else None) for shape in scene.shapes]
        return _join(nouns, scene.relation) + GROUNDS[0].format(scene.background)
    nouns = [_noun(shape, _spoken_size(shape, rng)) for shape in scene.shapes]
    relation = scene.relation
    if relation is not None and rng.random() < JOINS_BY_AND:
        relation = "and"
    elif relation is not None and rng.random() < TURNS_ROUND:
        nouns, relation = nouns[::-1], INVERSE[relation]
    spoken = "grey" if scene.background == "gray" and rng.random() < 0.5 else scene.background
    if rng.random() < FRONTS_GROUND:
        return FRONTED.format(spoken) + _join(nouns, relation)
    # Every prefix and ground is equally likely, but leaving the ground out is rare.
    ground = choose(rng, GROUNDS[:-1] * 4 + GROUNDS[-1:])
    return choose(rng, PREFIXES) + _join(nouns, relation) + ground.format(spoken)


def _spoken_size(shape: Shape, rng: np.random.Generator) -> str | None:
    if rng.random() >= NAMES_SIZE:
        return None
    synonym = {"large": "big", "small": "little"}[shape.size]
    return synonym if rng.random() < 0.25 else shape.size


def _noun(shape: Shape, size: str | None) -> str:
    fill = None if shape.fill == DEFAULT_FILL else shape.fill
    words = " ".join(word for word in (size, fill, shape.colour, shape.shape) if word)
    return ("an " if words[0] in "aeiou" else "a ") + words


def _join(nouns: list[str], relation: str | None) -> str:
    return nouns[0] if relation is None else f"{nouns[0]} {relation} {nouns[1]}"


def parse(caption: str) -> Spec:
    """Parse a caption in any phrasing of `caption`; case and a last full stop are free.

    Errors: ValueError naming the first word that is not understood.
    """
    text = " ".join(caption.lower().split()).removesuffix(".")
    background = None
    for pattern in (_FRONTED, _GROUND):
        if found := pattern.search(text):
            background = _known(found[1], (*BACKGROUNDS, *COLOURS), caption)
            text = text[: found.start()] + text[found.end() :]
            break
    if found := _PREFIX.match(text):
        text = text[found.end() :]
    nouns = _JOINT.split(text, maxsplit=1)  # one noun; or a noun, how it is joined, and another
    shapes = tuple(_shape(noun, caption) for noun in nouns[::2])
    relation = nouns[1] if len(nouns) == 3 and nouns[1] != "and" else None
    return Spec(background, shapes, relation)


def _shape(noun: str, caption: str) -> ShapeSpec:
    words = noun.split()
    if len(words) < 2 or words[0] not in ("a", "an"):
        raise ValueError(
            f"expected 'a ... shape' and found {shorten(noun)} in caption {shorten(caption)}"
        )
    found: dict[str, str] = {"shape": _known(words[-1], SHAPES, caption)}
    kinds = dict.fromkeys(SIZES, "size") | dict.fromkeys(FILLS, "fill")
    kinds |= dict.fromkeys(COLOURS, "colour")
    for word in words[1:-1]:
        kind = kinds[_known(word, tuple(kinds), caption)]
        if kind in found:
            raise ValueError(f"second {kind} {word!r} in caption {shorten(caption)}")
        found[kind] = SYNONYMS.get(word, word)
    return ShapeSpec(**found)


def _known(word: str, names: tuple[str, ...], caption: str) -> str:
    name = SYNONYMS.get(word, word)
    if name not in names:
        known = ", ".join(names)
        raise ValueError(
            f"unknown word {shorten(word)} in caption {shorten(caption)}; known: {known}"
        )
    return name
