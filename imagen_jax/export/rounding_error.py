"""The error that rounding a stage's weights causes, relative to its float32 weights."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import config, models
from imagen_jax.types import Network, Params

DIGITS = 3  # that are kept of a measurement
IMAGES = 2


def measure_rounding(
    params: Params, stored: Params, experiment: config.Experiment
) -> dict[str, float]:
    """Relative root mean square error of the weights, and of one network evaluation.

    The network sees random images, levels and encodings, always the same, of the size of training.
    """
    params = jax.device_get(params)  # where the stored ones are: one program serves both
    weights = _relative(jax.tree.leaves(params), jax.tree.leaves(stored))
    if weights == 0.0:  # equal weights give equal results
        return {"weights": 0.0, "network": 0.0}
    module, given = models.build(experiment.stage.model), _inputs(experiment)
    exact, rounded = (_evaluate(p, *given, module=module) for p in (params, stored))
    return {"weights": weights, "network": _relative([exact], [rounded])}


@functools.partial(jax.jit, static_argnames=("module",))
def _evaluate(
    params: Params, text: Any, z: Any, logsnr: Any, low: dict[str, Any], *, module: Network
) -> jax.Array:
    mask = jnp.ones(text.shape[:2], jnp.bool_)
    cond = models.condition(module, params, (text, mask, mask[:, 0]), **low)
    return models.predictor(module, params, cond)(z, logsnr)


def _inputs(experiment: config.Experiment) -> tuple[Any, ...]:
    """Text, images, levels, and the inputs that only super-resolution has."""
    stage, text = experiment.stage, experiment.text
    noise, side = np.random.default_rng(0), stage.train_side

    def normal(*shape: int) -> np.ndarray:
        return noise.standard_normal((IMAGES, *shape), np.float32)

    low = {"low_res": normal(side, side, 3), "aug_logsnr": np.linspace(0, 4, IMAGES, dtype="f4")}
    return (
        normal(text.max_length, text.width),
        normal(side, side, 3),
        np.linspace(-2, 2, IMAGES, dtype=np.float32),
        (low if stage.is_super_resolution else {})
        | ({"guidance_weight": np.ones(IMAGES, np.float32)} if stage.has_guidance_input else {}),
    )


def _relative(exact: list[Any], found: list[Any]) -> float:
    """The relative error over all arrays together."""
    error = size = 0.0
    for a, b in zip(exact, found, strict=True):
        one, other = (np.asarray(x, np.float64) for x in (a, b))
        error += float(np.sum((one - other) ** 2))
        size += float(np.sum(one**2))
    return float(f"{math.sqrt(error / size):.{DIGITS}g}") if size else 0.0
