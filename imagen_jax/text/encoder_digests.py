"""Digests that tell one text encoder from another, whatever files it lies in.

The identity is of weights and tokenizer, the vocabulary of the tokenizer alone.
"""

import hashlib
from collections.abc import Mapping

from imagen_jax.text.checkpoints import lazy_tensors
from imagen_jax.text.checkpoints.lazy_tensors import Layout
from imagen_jax.text.tokenizer import Tokenizer

DIGEST = 16  # hexadecimal digits


def digest_weights(digests: Mapping[str, str]) -> str:
    """Digest all weights, of which `lazy_tensors.digest_values` gave a digest each, by name."""
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def encoder_identity(tokenizer: Tokenizer, weights: str) -> str:
    """The key of caches; `weights` is their digest."""
    digest = hashlib.sha256(tokenizer.model)
    digest.update(weights.encode())
    return digest.hexdigest()[:DIGEST]


def vocabulary_digest(tokenizer: Tokenizer) -> str:
    """A digest of the tokenizer."""
    return hashlib.sha256(tokenizer.model).hexdigest()[:DIGEST]


def read_identity(layout: Layout, tokenizer: Tokenizer) -> str:
    """The identity of an encoder, whose tensors are read one after another and not kept.

    Errors: those of reading.
    """
    digests = lazy_tensors.read_parameters(
        layout, lambda _, array: lazy_tensors.digest_values(array)
    )
    return encoder_identity(tokenizer, digest_weights(digests))
