"""What a stage samples from: encoded prompts, the images to start from, and the images' numbers."""

from typing import Any, NamedTuple

import jax
import numpy as np


class EncodedText(NamedTuple):
    """Encoded captions, numpy or jax: text (b, n, d), text_mask (b, n), has_text (b,).

    `has_text` is false for an empty one.
    """

    text: Any
    text_mask: Any
    has_text: Any

    def without_text(self) -> "EncodedText":
        """The same number of empty captions."""
        return self._replace(has_text=np.zeros(self.has_text.shape, np.bool_))


class SamplerInputs(NamedTuple):
    """Encoded prompts, and the images that a stage starts from; every array is batch-first.

    Numpy or jax; images that are not yet selected by `rows` may be `request.LazyRows`.
    Shapes: indices (b,), the numbers of the images, int32, which decide the noise with the seed;
    aug_level (b,); low_res (b, h, w, 3) in [-1, 1] at the previous stage's size, None for a base;
    init_image (b, h, w, 3) in [-1, 1] to start from, None for pure noise; known_mask
    (b, h, w, 1), true where `init_image` stays, None for nowhere; seeds (b,), uint32, of the images
    in place of the one in `SamplerParams`, None for that.
    """

    captions: EncodedText
    indices: Any
    negatives: EncodedText | None = None  # what guidance leads away from; `generate`: empty ones
    aug_level: Any = None
    low_res: Any = None
    init_image: Any = None
    known_mask: Any = None
    seeds: Any = None

    def rows(self, chosen: np.ndarray) -> "SamplerInputs":
        """Select the rows at `chosen`."""
        return jax.tree.map(lambda x: x[chosen], self)
