"""Features split by batch and height over the mesh, so that one image fits several devices.

XLA's partitioner inserts the halo exchange: the rows at the edges that a convolution reads of its
neighbours on the axis `spatial`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax


def constrain_to_mesh(x: jax.Array) -> jax.Array:
    """Split x's batch over the active mesh, and its height if it has one.

    Rank 4 is images or their features (b, h, w, c). Elsewhere x itself.
    """
    axes = ("batch", "height", None, None) if x.ndim == 4 else ("batch",) + (None,) * (x.ndim - 1)
    return nn.with_logical_constraint(x, axes)


def keep_products_split(
    layer: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """Constrain every product's result, and so its gradient, to stay split by batch and height.

    Left to itself the partitioner lets the sharding of a kernel's channels spread to the features
    and gathers their batch instead: each chip then holds the maps of all images.
    """
    result = layer(*args, **kwargs)
    is_product = isinstance(context.module, nn.Conv | nn.ConvTranspose | nn.Dense)
    return constrain_to_mesh(result) if is_product and context.method_name == "__call__" else result
