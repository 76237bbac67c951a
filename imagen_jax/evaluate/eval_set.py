"""Evaluation sets: captions in no dataset, and real images of them, which are the ceiling."""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from imagen_jax.data.images.transforms import area_downsample
from imagen_jax.data.synthetic.shapes import dataset as shapes
from imagen_jax.data.synthetic.shapes.captions import parse
from imagen_jax.data.synthetic.shapes.generate import SIDE, SceneStream, render_example

KINDS = {"one": 1, "two": 2}  # objects that a caption names
SPLIT = "validation"  # in whose manner the halves are drawn


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """Captions, and real images that show what they say."""

    captions: list[str]
    real: UInt8[np.ndarray, "p side side 3"]

    def kinds(self) -> dict[str, list[int]]:
        """Return the captions of one object and of two; a kind without captions is left out."""
        counts = [len(parse(caption).shapes) for caption in self.captions]
        found = {
            kind: [i for i, n in enumerate(counts) if n == objects]
            for kind, objects in KINDS.items()
        }
        return {kind: chosen for kind, chosen in found.items() if chosen}

    def images_of_side(self, side: int) -> UInt8[np.ndarray, "p side side 3"]:
        """The real images at `side` pixels."""
        return area_downsample(self.real, self.real.shape[1] // side)


def draw_eval_set(dataset: str, split: str, *, count: int, seed: int, size: int) -> EvalSet:
    """New captions in a split's manner, one and two objects as they come.

    Shapes: real uint8 (count, size, size, 3).
    Errors: ValueError for a dataset that is not of shapes.
    """
    _require_shapes(dataset)
    return EvalSet(*shapes.eval_set_of(dataset, split, count=count, seed=seed, size=size))


def balanced_eval_set(
    dataset: str, *, count: int, seed: int, size: int, plain: float | None = None
) -> EvalSet:
    """New captions in the validation split's manner, the first half with one object, then two.

    `plain` is the share in the plain wording, the dataset's own if None.
    Shapes: real uint8 (count, size, size, 3), area-averaged as the training images are.
    Errors: ValueError for a dataset that is not of shapes, or a count that is odd or below 2.
    """
    if count < 2 or count % 2:
        raise ValueError(f"images={count} must be even: half of them show one object, half two")
    options = _require_shapes(dataset)
    grammar, stream = options.grammar_of(SPLIT), len(shapes.SPLITS) + shapes.SPLITS.index(SPLIT)
    plain = grammar.plain if plain is None else plain
    captions, real = [], []
    for single in (1.0, 0.0):  # the grammar's share of scenes with one object
        series = SceneStream(dataclasses.replace(grammar, single=single, plain=plain), seed, stream)
        for index in range(count // 2):
            _, words, drawn = render_example(series, index, size=SIDE)
            captions.append(words)
            real.append(area_downsample(drawn, SIDE // size))
    return EvalSet(captions, np.stack(real))


def _require_shapes(dataset: str) -> shapes.ShapesConfig:
    name = dataset.removeprefix("shapes/")
    if name not in shapes.Shapes.builder_configs:
        raise ValueError(f"no dataset {dataset!r}: the oracle judges shapes only")
    return shapes.Shapes.builder_configs[name]
