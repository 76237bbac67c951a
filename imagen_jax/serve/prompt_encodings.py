"""Encodings of prompts, kept for prompts that come again: the least recently used go first."""

import warnings
from collections import OrderedDict

import jax
import numpy as np

from imagen_jax.imagen import Imagen
from imagen_jax.sample.sampler_inputs import SamplerInputs

MOST_BYTES = 1 << 28  # of encodings: 68 of T5-XXL's with their negative prompts


class PromptEncodings:
    """A prompt's encoding with its negative prompt's, and sentences about what it can't say.

    Each text is encoded by itself: its bits do not depend on others, and its programs, one for each
    length, are those that warming compiles.
    Used by one thread.
    """

    def __init__(self, imagen: Imagen, most_bytes: int = MOST_BYTES) -> None:
        self._imagen, self._most = imagen, most_bytes
        self._kept: OrderedDict[tuple[str, str], tuple[SamplerInputs, tuple[str, ...]]]
        self._kept = OrderedDict()
        self._bytes = 0

    def get(self, prompt: str, negative_prompt: str) -> tuple[SamplerInputs, tuple[str, ...]]:
        """Encode, or find, one row; its index is 0. Errors: as `Imagen.encode`."""
        key = (prompt, negative_prompt)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            encoded = self._imagen.encode([prompt], negative_prompt=negative_prompt, batch_size=1)
        said = tuple(str(one.message) for one in caught if one.category is UserWarning)
        negatives = encoded.negatives or encoded.captions.without_text()
        found = encoded._replace(negatives=negatives), said
        self._kept[key] = found
        self._bytes += _size(found[0])
        while self._bytes > self._most and len(self._kept) > 1:
            _, (oldest, _) = self._kept.popitem(last=False)
            self._bytes -= _size(oldest)
        return found


def _size(encoded: SamplerInputs) -> int:
    return sum(np.asarray(x).nbytes for x in jax.tree.leaves(encoded))
