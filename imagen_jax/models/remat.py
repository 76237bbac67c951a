"""Rematerialisation: what the backward pass makes again instead of keeping it."""

from typing import Any, Literal

import flax.linen as nn

from imagen_jax import config


def maybe_remat(module: Any, remat: config.Remat, *, part: Literal["block", "level"]) -> Any:
    """Return the class of a block or of a level with the backward pass that `remat` asks for."""
    if remat == part:
        return nn.remat(module)
    if remat == "convs" and part == "block":
        return nn.remat(module, policy=_is_product)
    return module


def _is_product(primitive: Any, *_: Any, **params: Any) -> bool:
    """Keep results of convolutions and projections; recompute products of queries and keys."""
    if primitive.name == "dot_general":
        _, (batch_axes, _) = params["dimension_numbers"]
        return not batch_axes
    return primitive.name == "conv_general_dilated"
