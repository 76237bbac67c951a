"""The exponential moving average of the parameters, which sampling uses."""

import jax
import jax.numpy as jnp

from imagen_jax.types import Params

WARMUP = 10.0  # steps; ours: a young average forgets its random start


def update_ema(
    ema: Params, params: Params, step: jax.Array, *, decay: float, start: int = 0
) -> Params:
    """EMA after `step` updates: ema <- d * ema + (1 - d) * params, d = min(decay, (1+n)/(10+n)).

    n counts the steps after `start`; until then the average is the parameters themselves, d = 0.
    Differs from the paper: it states no EMA; .9999 is its authors' habit elsewhere.
    """
    n = (step - start).astype(jnp.float32)
    d = jnp.where(n > 0, jnp.minimum(decay, (1.0 + n) / (WARMUP + n)), 0.0)
    return jax.tree.map(lambda e, p: e + (1.0 - d) * (p - e), ema, params)
