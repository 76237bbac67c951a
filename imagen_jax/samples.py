"""Results of `Imagen`: images with a short `repr`, which a notebook shows as a grid."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from imagen_jax.io import image_grid

if TYPE_CHECKING:
    from PIL.Image import Image


class Samples(dict[str, np.ndarray]):
    """Images of every stage: {stage name: uint8 (p, h, w, 3)}, one for each prompt.

    `first_index` is the number of the first of them.
    """

    def __init__(
        self, images: Mapping[str, np.ndarray], *, prompts: Sequence[str], first_index: int
    ) -> None:
        super().__init__(images)
        self.prompts, self.first_index = list(prompts), first_index

    @classmethod
    def join(cls, parts: Iterable[Samples]) -> Samples:
        """Parts that follow one another as one. Errors: IndexError for no parts."""
        parts = list(parts)
        return cls(
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
            prompts=[prompt for part in parts for prompt in part.prompts],
            first_index=parts[0].first_index,
        )

    def last_images(self) -> ImageList:
        """The images of the last stage, as PIL images."""
        from PIL import Image as pil

        return ImageList(map(pil.fromarray, list(self.values())[-1]), prompts=self.prompts)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {x.shape[1]}x{x.shape[2]}" for name, x in self.items())
        return f"Samples({_count(self.prompts)}: {sizes})"

    def _repr_png_(self) -> bytes:
        return self.last_images()._repr_png_()


class ImageList(list["Image"]):
    """PIL images, one for each of `prompts`."""

    def __init__(self, images: Iterable[Image], *, prompts: Sequence[str]) -> None:
        super().__init__(images)
        self.prompts = list(prompts)

    def __repr__(self) -> str:
        size = f" of {self[0].height}x{self[0].width} pixels" if self else ""
        return f"ImageList({_count(self)}{size})"

    def _repr_png_(self) -> bytes:
        """A captioned grid, as Jupyter asks for it."""
        file = io.BytesIO()
        shown = [prompt or "(no text)" for prompt in self.prompts]
        image_grid.draw_grid([np.asarray(image) for image in self], shown).save(file, "png")
        return file.getvalue()


def _count(things: Sequence[object]) -> str:
    return f"{len(things)} image{'' if len(things) == 1 else 's'}"
