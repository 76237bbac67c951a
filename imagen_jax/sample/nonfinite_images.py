"""Images that are not finite: reported by stage and index, and never saved as black ones."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from imagen_jax import config
from imagen_jax.parallel import mesh
from imagen_jax.types import Image, Params

NAMED = 5  # images that an error lists


class NotFinite(FloatingPointError):
    """Images of a stage that are not finite; `indices` are theirs."""

    def __init__(self, stage: str, indices: Sequence[int], cause: str, named: str = "") -> None:
        self.stage, self.indices, self.cause = stage, tuple(indices), cause
        rest = len(indices) - NAMED
        listed = named or ", ".join(str(i) for i in indices[:NAMED])
        more = f" and {rest} more" if rest > 0 else ""
        many = "images" if len(indices) > 1 else "image"
        verb = "are" if len(indices) > 1 else "is"
        super().__init__(f"{stage}: {many} {listed}{more} {verb} not finite: {cause}")

    def with_prompts(self, prompts: Sequence[str], *, first_index: int) -> "NotFinite":
        """The same with the prompts, of which the first is that of image `first_index`."""
        named = ", ".join(
            f"{i} ({config.shorten(prompts[i - first_index])})" for i in self.indices[:NAMED]
        )
        return NotFinite(self.stage, self.indices, self.cause, named)


@jax.jit
def is_finite_each(images: Image) -> Bool[Array, " b"]:
    """Find the images that are finite throughout: one reduction, where the images are."""
    return jnp.isfinite(images).all(axis=(1, 2, 3))


def check_finite(
    sound: Bool[Array, " b"],
    indices: np.ndarray,
    *,
    stage: config.Stage,
    inputs: tuple[Params, Any],
) -> None:
    """Refuse a batch with images that are not finite; rows after the last index don't count.

    `inputs` are the stage's parameters and encoded prompts, searched for the cause.
    Errors: NotFinite.
    """
    found = mesh.to_host(sound)[: len(indices)]
    if not found.all():
        wrong = sorted({int(i) for i in np.asarray(indices)[: len(found)][~found]})
        raise NotFinite(stage.name, wrong, _cause(stage, *inputs))


def _cause(stage: config.Stage, params: Params, text: Any) -> str:
    if not _all_finite(params):
        return "nor are the weights of this stage; take those of an earlier checkpoint"
    if not _all_finite(text):
        return "nor are the encoded prompts; take another text encoder or its weights in float32"
    return (
        f"its weights are, but its numbers outgrew {stage.model.dtype} while it sampled with "
        f"guidance_weight={stage.sampler.guidance_weight:g}; lower that"
    )


def _all_finite(tree: Any) -> bool:
    return all(
        bool(jnp.isfinite(x).all())
        for x in jax.tree.leaves(tree)
        if np.issubdtype(x.dtype, np.inexact)
    )
