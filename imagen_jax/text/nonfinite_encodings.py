"""Encodings that are not finite are refused where they arise, with their cause."""

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Float

from imagen_jax.config import EncoderDtype, shorten
from imagen_jax.types import Params


def is_finite(text: Float[np.ndarray, "..."]) -> bool:
    """Return whether encodings have neither NaN nor infinities."""
    return bool(np.isfinite(text).all())


def check_encodings(
    caption: str, text: Float[np.ndarray, "n d"], params: Params, dtype: EncoderDtype
) -> None:
    """Refuse a caption's encoding that is not finite.

    Errors: ValueError naming the caption, and the first tensor whose weights are not finite.
    """
    if not is_finite(text):
        which = shorten(caption)
        raise ValueError(f"the encoding of {which} is not finite: {explain(params, dtype)}")


def explain(params: Params, dtype: EncoderDtype) -> str:
    """Explain why encodings with these weights are not finite, and what helps."""
    weights = traverse_util.flatten_dict(params, sep=".")
    for name in sorted(weights):
        wrong = int(jnp.sum(~jnp.isfinite(jnp.asarray(weights[name]))))
        if wrong:
            return (
                f"of its tensor {name}, {wrong:,} of {weights[name].size:,} values are NaN or "
                "infinite; copy or convert the checkpoint again"
            )
    remedy = "take dtype float32" if dtype != "float32" else "take a checkpoint that computes in it"
    return f"its weights are finite, but it overflowed in {dtype}; {remedy}"
