"""The alignment oracle: does an image of shapes show what its caption says? (no learning)"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import UInt8

from imagen_jax.data.synthetic.shapes.captions import Spec, parse
from imagen_jax.evaluate.detector import FILL_SIZE, DetectedScene, DetectedShape, detect

ATTRIBUTES = ("background", "count", "colour", "shape", "size", "fill", "relation", "all")
LARGE = {1: 0.52, 2: 0.34}  # least extent of a large object, by how many the caption names
WEIGHTS = {"colour": 4, "shape": 2, "size": 1, "fill": 1}  # in matching objects with the caption
APART = 0.1  # least distance of two centres along their relation's axis, in image sides


@dataclass(frozen=True)
class Verdict:
    """Right or wrong by attribute; None where the caption says nothing or the image is too small.

    An attribute of two objects is right where both are.
    """

    background: bool | None
    count: bool
    colour: bool | None
    shape: bool
    size: bool | None
    fill: bool | None
    relation: bool | None

    @property
    def all(self) -> bool:
        """True if nothing that the caption states is wrong."""
        return False not in dataclasses.astuple(self)


def judge(pixels: UInt8[np.ndarray, "h w 3"], caption: str | Spec) -> Verdict:
    """Compare one image with its caption, attribute by attribute.

    Shapes: (h, w, 3), square, 16 pixels or more; fills are judged from 48 pixels on.
    Errors: ValueError for a caption outside the grammar or an image of another form.
    """
    spec = parse(caption) if isinstance(caption, str) else caption
    return compare(detect(pixels), spec, fills=pixels.shape[0] >= FILL_SIZE)


def score(
    images: Iterable[UInt8[np.ndarray, "h w 3"]], captions: Sequence[str | Spec]
) -> dict[str, tuple[float, int]]:
    """Return the share of images that are right, and how many were judged, for each attribute.

    Attributes that no image was judged on are left out.
    """
    verdicts = [judge(*pair) for pair in zip(images, captions, strict=True)]
    shares: dict[str, tuple[float, int]] = {}
    for attribute in ATTRIBUTES:
        said = [getattr(verdict, attribute) for verdict in verdicts]
        judged = [right for right in said if right is not None]
        if judged:
            shares[attribute] = (sum(judged) / len(judged), len(judged))
    return shares


def compare(seen: DetectedScene, spec: Spec, *, fills: bool) -> Verdict:
    """Compare what an image shows with what a caption states.

    The caption's objects are matched with the largest ones seen, by colour before shape before
    size and fill; where they stand decides only between matches that are otherwise as good.
    """
    largest = [*seen.blobs, None, None][: len(spec.shapes)]
    order = max(permutations(largest), key=lambda order: _fitness(spec, order))
    traits = _traits(spec, order)
    return Verdict(
        background=None if spec.background is None else seen.background == spec.background,
        count=len(seen.blobs) == len(spec.shapes),
        colour=_both(traits, "colour"),
        shape=bool(_both(traits, "shape")),
        size=_both(traits, "size"),
        fill=_both(traits, "fill") if fills else None,
        relation=None if spec.relation is None else _related(order, spec.relation),
    )


def _fitness(spec: Spec, order: Sequence[DetectedShape | None]) -> tuple[int, bool]:
    agreed = sum(
        WEIGHTS[name] for trait in _traits(spec, order) for name, right in trait.items() if right
    )
    return agreed, spec.relation is not None and _related(order, spec.relation)


def _traits(spec: Spec, order: Sequence[DetectedShape | None]) -> list[dict[str, bool | None]]:
    """For each object of the caption, which of its traits the matched one has; None: not stated."""
    least = LARGE[len(spec.shapes)]
    traits = []
    for stated, blob in zip(spec.shapes, order, strict=True):
        size = None if blob is None else "large" if blob.extent >= least else "small"
        traits.append(
            {
                "colour": _equal(stated.colour, None if blob is None else blob.colour),
                "shape": _equal(stated.shape, None if blob is None else blob.shape),
                "size": _equal(stated.size, size),
                "fill": _equal(stated.fill, None if blob is None else blob.fill),
            }
        )
    return traits


def _equal(stated: str | None, seen: str | None) -> bool | None:
    return None if stated is None else seen == stated


def _both(traits: list[dict[str, bool | None]], name: str) -> bool | None:
    """True if every object that has the trait stated shows it; None where none has."""
    judged = [trait[name] for trait in traits if trait[name] is not None]
    return all(judged) if judged else None


def _related(order: Sequence[DetectedShape | None], relation: str) -> bool:
    """True if the first object stands so to the second, farther along that axis than across it."""
    first, second = order
    if first is None or second is None:
        return False
    right, down = second.x - first.x, second.y - first.y
    along, across = (down, right) if relation in ("above", "below") else (right, down)
    towards = along if relation in ("above", "to the left of") else -along
    return towards >= APART and towards > abs(across)
