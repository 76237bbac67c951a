"""The embedded dataset of captioned shapes: a TFDS builder with nothing to download.

`build` writes it, `source` reads it; neither needs TensorFlow.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from tqdm import tqdm

from imagen_jax.data.synthetic import tfds_builder
from imagen_jax.data.synthetic.shapes.generate import (
    SIDE,
    SceneStream,
    generate_splits,
    render_example,
)
from imagen_jax.data.synthetic.shapes.scenes import SIZES, Grammar
from imagen_jax.data.synthetic.tfds_builder import SPLITS, TfdsSource


@dataclass(eq=False, kw_only=True)
class ShapesConfig(tfds.core.BuilderConfig):
    """The number of examples of each split, and the grammar that they are drawn from."""

    train: int
    validation: int
    held_out: int
    grammar: Grammar = field(default_factory=Grammar)
    seed: int = 0

    def size(self, split: str) -> int:
        """The number of examples of a split."""
        return dict(zip(SPLITS, (self.train, self.validation, self.held_out), strict=True))[split]

    def grammar_of(self, split: str) -> Grammar:
        """The grammar that a split is drawn from."""
        return replace(self.grammar, pairs="only") if split == "held_out" else self.grammar

    def recipe(self) -> str:
        """All that the images depend on; stored with them."""
        recipe = f"{self.seed=} {self.train=} {self.validation=} {self.held_out=} {self.grammar=}"
        return recipe.replace(f", sizes={SIZES}", "")  # all of them go unsaid in stored recipes


class Shapes(tfds_builder.Builder):
    """One or two coloured shapes on a plain ground, 256 x 256, captioned."""

    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = (
        ShapesConfig(
            name="full",
            description="Every shape, colour, fill and phrasing.",
            train=150_000,  # .7 GB; past 1 GB TFDS would need TensorFlow to write it
            validation=2_000,
            held_out=2_000,
        ),
        ShapesConfig(
            name="quickstart",
            description="What a few minutes can learn: one large, plain shape of six.",
            train=12_000,
            validation=500,
            held_out=500,
            grammar=Grammar(
                single=1.0,
                patterned=0.0,
                plain=0.8,
                shapes=("circle", "square", "triangle", "ring", "cross", "heart"),
                backgrounds=("white", "black", "gray", "yellow"),
                sizes=("large",),
            ),
        ),
        ShapesConfig(
            name="tiny",
            description="A handful, for tests.",
            train=40,
            validation=8,
            held_out=8,
        ),
    )

    SIDE = SIDE
    TEXTS = ("caption", "scene")  # the scene as JSON, see scenes.from_json
    inputs: int | None  # processes that render; None: one for each CPU

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        series = SceneStream(config.grammar_of(split), config.seed, SPLITS.index(split))
        count = config.size(split)
        rendered = generate_splits(series, count, workers=self.inputs or os.cpu_count() or 1)
        name = f"shapes/{config.name} {split}"
        for index, example in enumerate(tqdm(rendered, name, count, unit=" images")):
            yield (
                index,
                {
                    "image": io.BytesIO(example.image),  # encoded bytes need no TensorFlow
                    "caption": example.caption,
                    "scene": example.scene,
                },
            )


def build_shapes(name: str, data_dir: str | Path, *, workers: int | None = None) -> Shapes:
    """Render the dataset `name` (full, quickstart or tiny) under `data_dir`, unless it is there.

    Errors: ValueError for an unknown name or an unusable dataset.
    """
    found = tfds_builder.find_built(Shapes, name, data_dir)
    if found is not None:
        return found
    config = tfds_builder.config_of(Shapes, name)
    builder = Shapes(config=config, data_dir=data_dir, inputs=workers)
    tfds_builder.write_dataset(builder)
    return builder


def open_dataset(name: str, split: str, data_dir: str | Path) -> TfdsSource:
    """A split of a dataset that was built: image (PNG bytes), caption, and scene (JSON).

    Errors: as `tfds_builder.open_built`.
    """
    return tfds_builder.open_built(Shapes, name, split, data_dir)


def eval_set_of(
    name: str, split: str, *, count: int, seed: int = 0, size: int = SIDE
) -> tuple[list[str], UInt8[np.ndarray, "b size size 3"]]:
    """New captions in a split's manner, in no dataset, and images that show what they say.

    Shapes: pixels (count, size, size, 3).
    """
    config = Shapes.builder_configs[tfds_builder.config_of(Shapes, name)]
    series = SceneStream(config.grammar_of(split), seed, len(SPLITS) + SPLITS.index(split))
    pairs = [render_example(series, index, size=size)[1:] for index in range(count)]
    return [words for words, _ in pairs], np.stack([pixels for _, pixels in pairs])
