"""Retrieval: is the real image that is most like a sampled one that of its prompt?

It judges datasets of one image a caption, such as emoji, without any learned network.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from imagen_jax.config import shorten

NEAREST = 5


def ranks_of_captions(
    images: Float64[np.ndarray, "p d"],
    prompts: Sequence[str],
    real: Float64[np.ndarray, "n d"],
    captions: Sequence[str],
) -> np.ndarray:
    """Count the real images that are nearer to each image than the nearest one of its prompt.

    Shapes: images (p, d) and real (n, d) descriptors, compared by Euclidean distance; result (p,).
    Errors: ValueError for a prompt that is no caption of a real image.
    """
    known: dict[str, list[int]] = {}
    for number, caption in enumerate(captions):
        known.setdefault(caption, []).append(number)
    ranks = []
    for number, (image, prompt) in enumerate(zip(images, prompts, strict=True), 1):
        if prompt not in known:
            raise ValueError(
                f"prompt {number}, {shorten(prompt)}, is no caption of the reference: retrieval "
                "compares with the real image of each prompt"
            )
        distances = np.square(real - image[None]).sum(axis=1)
        ranks.append(int((distances < distances[known[prompt]].min()).sum()))
    return np.array(ranks)


def hits(ranks: np.ndarray) -> dict[str, Bool[np.ndarray, " p"]]:
    """By name, which images have their prompt's real image as the nearest, or among five."""
    return {"retrieval": ranks < 1, f"retrieval_{NEAREST}": ranks < NEAREST}
