"""Rematerialisation: what the backward pass makes again instead of keeping it."""

from typing import Any, Literal

import flax.linen as nn

from imagen_jax import config


def maybe_remat(module: Any, remat: config.Remat, *, part: Literal["block", "level"]) -> Any:
    """The class of a block or of a level, as its backward pass shall be under `remat`."""
    if remat == part:
        return nn.remat(module)
    if remat == "convs" and part == "block":
        return nn.remat(module, policy=_is_product)
    return module


def _is_product(primitive: Any, *_: Any, **params: Any) -> bool:
    """Whether to keep a result: of a convolution or a projection, not of queries with keys."""
    if primitive.name == "dot_general":
        _, (batch_axes, _) = params["dimension_numbers"]
        return not batch_axes
    return primitive.name == "conv_general_dilated"
