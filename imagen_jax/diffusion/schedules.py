"""Noise schedules: time to logsnr, and what a logsnr does to an image (section 2.2, appendix A).

Adding a kind is a function of times, a line in `_CURVES` and a name in `config.ScheduleKind`; from
outside, `config.NoiseSchedule(curve=...)` takes a function and nothing here is edited.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from imagen_jax import config, discrete_schedule
from imagen_jax.types import Image, LogSNR, Scale, Time

Curve = Callable[[jax.Array], jax.Array]  # times (b,) to logsnr (b,)

_TINY = 1e-30  # stands for zero inside logarithms; far outside every clipped range


def logsnr(t: Time, *, schedule: config.NoiseSchedule) -> LogSNR:
    """Return the level at time t: it falls from `logsnr_max` at most to `logsnr_min` at least.

    Shapes: t and the result (b,). Units: t in [0, 1]; result in nats.
    The shift moves the curve, not its limits: every stage starts from the same pure noise and
    ends at the same clean image.
    Source: shift, simple diffusion (arXiv:2301.11093); that paper's code shifts the limits too.
    """
    curve = schedule.curve or _CURVES[schedule.kind](schedule)
    return jnp.clip(curve(t) + schedule.shift, schedule.logsnr_min, schedule.logsnr_max)


def alpha_sigma(logsnr: LogSNR) -> tuple[Scale, Scale]:
    """Return signal and noise scale, whose squares sum to 1.

    Shapes: logsnr (b,); results (b, 1, 1, 1). Units: logsnr in nats.
    """
    column = logsnr[:, None, None, None]
    return jnp.sqrt(jax.nn.sigmoid(column)), jnp.sqrt(jax.nn.sigmoid(-column))


def add_noise(x0: Image, eps: Image, logsnr: LogSNR) -> Image:
    """Apply the forward process in one go: z = alpha * x0 + sigma * eps.

    Shapes: x0, eps and the result (b, h, w, c); logsnr (b,). Source: appendix A.
    """
    alpha, sigma = alpha_sigma(logsnr)
    return alpha * x0 + sigma * eps


def transition_variance(logsnr_s: LogSNR, logsnr_t: LogSNR) -> Scale:
    """Return the variance of z_t given z_s, for s < t: (1 - e^(logsnr_t - logsnr_s)) * sigma_t^2.

    Shapes: inputs (b,); result (b, 1, 1, 1). Source: appendix A; never sigma_t - (...) sigma_s.
    """
    _, sigma_t = alpha_sigma(logsnr_t)
    return -jnp.expm1(logsnr_t - logsnr_s)[:, None, None, None] * sigma_t**2


def _cosine(schedule: config.NoiseSchedule) -> Curve:
    """alpha = cos of an angle linear in t that meets both limits exactly (arXiv:2202.00512)."""
    low, high = (end - schedule.shift for end in (schedule.logsnr_min, schedule.logsnr_max))
    start = math.atan(math.exp(-high / 2))
    stop = math.atan(math.exp(-low / 2))
    return lambda t: -2 * jnp.log(jnp.tan((stop - start) * t + start))


def _cosine_iddpm(t: Time) -> LogSNR:
    """alpha^2 = f(t) / f(0), f = cos^2(((t + 0.008) / 1.008) * pi / 2) (arXiv:2102.09672).

    1 - alpha^2 is written as a product of sines, and cos(x) as sin(pi/2 - x): neither cancels.
    """
    quarter = math.pi / 2 / 1.008
    signal = jnp.sin((1 - t) * quarter) ** 2
    noise = jnp.sin(t * quarter) * jnp.sin((t + 0.016) * quarter)
    return jnp.log(jnp.maximum(signal, _TINY)) - jnp.log(jnp.maximum(noise, _TINY))


def _linear(t: Time) -> LogSNR:
    """The exact integral of beta rising linearly from 0.1 to 20 (1e-4 to 0.02 in 1000 steps)."""
    return -jnp.log(jnp.maximum(jnp.expm1(0.1 * t + 9.95 * t**2), _TINY))


def _linear_approx(t: Time) -> LogSNR:
    """The approximation that some public implementations use; it differs at small t."""
    return -jnp.log(jnp.expm1(1e-4 + 10 * t**2))


def _of_betas(betas: config.Betas) -> Curve:
    """Levels of discrete time steps, and between them; time 1 is the last step."""
    return lambda t: discrete_schedule.logsnr_of(t * (discrete_schedule.STEPS - 1), betas)


_CURVES: dict[str, Callable[[config.NoiseSchedule], Curve]] = {
    "cosine": _cosine,
    "cosine_iddpm": lambda _: _cosine_iddpm,
    "linear": lambda _: _linear,
    "linear_approx": lambda _: _linear_approx,
    "cosine_betas": lambda _: _of_betas("cosine"),
    "linear_betas": lambda _: _of_betas("linear"),
}
