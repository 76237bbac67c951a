"""The training loss: draw a level and noise, build the target, weigh the error (appendix A)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from imagen_jax import config, discrete_schedule, rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.prediction import from_x0, to_x0
from imagen_jax.diffusion.variance_bound import variance_bound
from imagen_jax.types import Image, LogSNR, Predict, RandomKey, Time

_EDM_MEAN, _EDM_STD = -1.2, 1.2  # of ln sigma (arXiv:2206.00364, table 1)


class LossTerms(NamedTuple):
    """The loss of each example and the level it was taken at, both (b,) float32."""

    per_example: jax.Array
    logsnr: jax.Array


def loss(predict: Predict, x0: Image, key: RandomKey, *, diffusion: config.Diffusion) -> LossTerms:
    """Compute the weighted squared error of a prediction, averaged over each image.

    The prediction is of what `diffusion.predicts` says. Channels beyond the image's are where a
    variance lies; with variance "learned_range" their bound is added to the loss, else they are
    left out of it.

    Shapes: x0 (b, h, w, c); results (b,). Units: x0 in [-1, 1].
    Errors: ValueError for a learned variance without its channels.
    Source: appendix A; the sum arXiv:2102.09672, equation 16, in bits over 1,000 steps.
    """
    x0 = x0.astype(jnp.float32)
    level, width = draw_logsnr(rng.fold(key, "level"), x0.shape[0], diffusion=diffusion)
    eps = jax.random.normal(rng.fold(key, "noise"), x0.shape)
    z = schedules.add_noise(x0, eps, level)
    target = from_x0(x0, z, level, predicts=diffusion.predicts)
    output = predict(z, level)
    output, rest = output[..., : x0.shape[-1]], output[..., x0.shape[-1] :]
    error = jnp.mean((output - target) ** 2, axis=(1, 2, 3))
    found = weight(level, width, diffusion=diffusion) * error
    if diffusion.variance == "learned_range":
        if rest.shape != x0.shape:
            raise ValueError("diffusion.variance='learned_range': the network predicts no variance")
        assert diffusion.betas is not None  # `config.Diffusion` has checked it
        implied = output
        if diffusion.predicts != "eps":
            implied = to_x0(output, z, level, predicts=diffusion.predicts)
            implied = from_x0(implied, z, level, predicts="eps")
        share = (rest + 1) / 2
        found += variance_bound(x0, eps, implied, share, level, betas=diffusion.betas)
    return LossTerms(found, level)


def draw_logsnr(
    key: RandomKey, batch: int, *, diffusion: config.Diffusion
) -> tuple[LogSNR, LogSNR]:
    """Levels to train at, and one over the density with which each was drawn.

    Shapes: results (b,). Units: nats. For a uniform time that density is -dt / dlogsnr. Schedules
    of discrete betas have their 1,000 levels alone, and no density: it is 1.
    """
    schedule = diffusion.schedule
    if diffusion.time_sampling == "edm":  # logsnr = -2 ln sigma
        normal = jax.random.normal(key, (batch,))
        level = -2 * (_EDM_MEAN + _EDM_STD * normal)
        width = 2 * _EDM_STD * math.sqrt(2 * math.pi) * jnp.exp(normal**2 / 2)
        return jnp.clip(level, schedule.logsnr_min, schedule.logsnr_max), width

    def level_at(t: Time) -> LogSNR:
        return schedules.logsnr(t, schedule=schedule)

    t = draw_time(key, batch, stratified=diffusion.time_sampling == "stratified")
    if diffusion.betas is not None:
        level = level_at(discrete_schedule.whole_step(t))
        return level, jnp.ones_like(level)
    level, slope = jax.jvp(level_at, (t,), (jnp.ones_like(t),))
    return level, -slope


def draw_time(key: RandomKey, batch: int, *, stratified: bool) -> Time:
    """Times uniform on [0, 1); stratified ones share an offset, so each 1/batch holds one.

    Shapes: result (b,). Source: variational diffusion models (arXiv:2107.00630), appendix I.1.
    """
    if not stratified:
        return jax.random.uniform(key, (batch,))
    return (jax.random.uniform(key) + jnp.arange(batch, dtype=jnp.float32) / batch) % 1.0


def weight(logsnr: LogSNR, width: LogSNR, *, diffusion: config.Diffusion) -> LogSNR:
    """Return the weight of the prediction's squared error: exactly 1 when "plain".

    The others are weights on the error of x0, times what turns the error of the prediction into
    that of x0: 1 / SNR for eps, 1 / (1 + SNR) for v. "sigmoid" is an integral over logsnr, hence
    its `width`; on eps it is sigmoid(bias - logsnr) * width.

    Shapes: logsnr, width and the result (b,), as from `draw_logsnr`.
    Source: min_snr, arXiv:2303.09556; sigmoid, arXiv:2410.19324; edm, arXiv:2206.00364.
    """
    log_of_x0 = {
        "min_snr": lambda: jnp.minimum(logsnr, math.log(diffusion.min_snr_gamma)),
        "sigmoid": lambda: (
            diffusion.sigmoid_bias
            + jax.nn.log_sigmoid(logsnr - diffusion.sigmoid_bias)
            + jnp.log(width)
        ),
        # (sigma_edm^2 + sigma_data^2) / (sigma_edm * sigma_data)^2, 1 / sigma_edm^2 = e^logsnr
        "edm": lambda: jnp.logaddexp(logsnr, jnp.float32(-2 * math.log(diffusion.sigma_data))),
    }
    if diffusion.loss_weight == "plain":
        return jnp.ones_like(logsnr)
    log_of_error: dict[str, Any] = {"eps": -logsnr, "x0": 0.0, "v": jax.nn.log_sigmoid(-logsnr)}
    return jnp.exp(log_of_x0[diffusion.loss_weight]() + log_of_error[diffusion.predicts])
