"""The seeded scene grammar of the embedded dataset: one or two coloured shapes on a plain ground.

A scene is names only; `captions.py` words it and `render.py` renders it.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from imagen_jax.config.decode import decode
from imagen_jax.io import json_reader

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SIZES = ("small", "large")
FILLS = ("solid", "striped", "dotted")
RELATIONS = ("above", "below", "to the left of", "to the right of")
BACKGROUNDS = ("white", "black", "gray", "yellow", "blue")

# Never rendered in training, for a test of composition; each shape and each colour occurs once,
# so that all of them are still seen with every other partner.
HELD_OUT = frozenset(
    {
        ("circle", "green"),
        ("square", "purple"),
        ("triangle", "blue"),
        ("star", "orange"),
        ("ring", "yellow"),
        ("cross", "red"),
        ("diamond", "white"),
        ("heart", "black"),
    }
)

Pairs = Literal["exclude", "only"]
Option = TypeVar("Option")


def _refuse_unknown(field: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{field} {name!r} is unknown; known: {', '.join(known)}")


@dataclass(frozen=True)
class Shape:
    """An object of a scene."""

    shape: str
    colour: str
    size: str = "large"
    fill: str = "solid"

    def __post_init__(self) -> None:
        _refuse_unknown("shape", (self.shape,), SHAPES)
        _refuse_unknown("colour", (self.colour,), COLOURS)
        _refuse_unknown("size", (self.size,), SIZES)
        _refuse_unknown("fill", (self.fill,), FILLS)


@dataclass(frozen=True)
class Scene:
    """A ground and one object, or two of which the first stands in `relation` to the second."""

    background: str
    shapes: tuple[Shape, ...]
    relation: str | None = None

    def __post_init__(self) -> None:
        _refuse_unknown("background", (self.background,), BACKGROUNDS)
        if len(self.shapes) not in (1, 2):
            raise ValueError(f"a scene has one or two shapes, not {len(self.shapes)}")
        if (self.relation is None) != (len(self.shapes) == 1):
            raise ValueError(f"two shapes need a relation and one has none: {self.relation=}")
        if self.relation is not None:
            _refuse_unknown("relation", (self.relation,), RELATIONS)
        if self.background in [shape.colour for shape in self.shapes]:
            raise ValueError(f"a {self.background} shape is invisible on {self.background}")


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The scenes that are drawn, how often, and how plainly they are captioned."""

    single: float = 0.4  # share of scenes with one object
    patterned: float = 0.5  # share of objects that are striped or dotted
    plain: float = 0.5  # share of captions in the plain wording
    pairs: Pairs = "exclude"  # (shape, colour) pairs of HELD_OUT: never, or nothing else
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = COLOURS
    backgrounds: tuple[str, ...] = BACKGROUNDS
    sizes: tuple[str, ...] = SIZES

    def __post_init__(self) -> None:
        for field in ("single", "patterned", "plain"):
            if not 0.0 <= vars(self)[field] <= 1.0:
                raise ValueError(f"{field} is a share in [0, 1], not {vars(self)[field]}")
        _refuse_unknown("shape", self.shapes, SHAPES)
        _refuse_unknown("colour", self.colours, COLOURS)
        _refuse_unknown("background", self.backgrounds, BACKGROUNDS)
        _refuse_unknown("size", self.sizes, SIZES)
        if not self.backgrounds:
            raise ValueError("backgrounds is empty")
        for background in self.backgrounds:
            if len({colour for _, colour in _candidates(self, {background})}) < 2:
                raise ValueError(f"fewer than two colours are left on a {background} background")


def _candidates(grammar: Grammar, taken: set[str]) -> list[tuple[str, str]]:
    """The (shape, colour) pairs that the grammar allows, less the colours already taken."""
    return [
        (shape, colour)
        for shape in grammar.shapes
        for colour in grammar.colours
        if colour not in taken and ((shape, colour) in HELD_OUT) == (grammar.pairs == "only")
    ]


def choose(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """Choose one of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def sample_scene(rng: np.random.Generator, *, grammar: Grammar) -> Scene:
    """A scene from the grammar; two objects always differ in colour, and so can be told apart."""
    background = choose(rng, grammar.backgrounds)
    shapes: list[Shape] = []
    for _ in range(1 if rng.random() < grammar.single else 2):
        taken = {background, *(shape.colour for shape in shapes)}
        shape, colour = choose(rng, _candidates(grammar, taken))
        fill = choose(rng, FILLS[1:]) if rng.random() < grammar.patterned else FILLS[0]
        shapes.append(Shape(shape, colour, choose(rng, grammar.sizes), fill))
    relation = choose(rng, RELATIONS) if len(shapes) == 2 else None
    return Scene(background, tuple(shapes), relation)


def to_json(scene: Scene) -> str:
    """The scene as one line of JSON."""
    return json.dumps(dataclasses.asdict(scene))


def from_json(text: str) -> Scene:
    """The scene that `to_json` wrote. Errors: ValueError for another text."""
    fields = json_reader.parse_object(text, where="the scene", remedy="build the dataset again")
    return decode(Scene, fields, "scene")
