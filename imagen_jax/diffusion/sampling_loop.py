"""The sampling loop: any step rule over any noise levels, from noise or an image (appendix A).

Inpainting (RePaint, arXiv:2201.09865) is here, too: known pixels and repeated steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.samplers import Denoised, SamplerParams, StepInputs, StepRule
from imagen_jax.diffusion.schedules import alpha_sigma
from imagen_jax.types import Image, Keys, LogSNR, RandomKey

# (indices of steps (b,), number of steps) -> their levels (b,), as `spacing.logsnr_at`.
Levels = Callable[[jax.Array, Any], LogSNR]
# Before the first step of all: noise of its level, noise of deviation 1, as diffusers has it, or
# the image with that level's noise, as before later steps.
Beginning = Literal["noise", "unit_noise", "image"]
# (z, logsnr) -> x0 with the known pixels, and the variance's share, if any.
Seen = Callable[[jax.Array, jax.Array], tuple[Image, jax.Array | None]]


class KnownPixels(NamedTuple):
    """Pixels that the image has to have where the mask is true.

    They are noised for every step (RePaint), or clean at each, as DeepFloyd IF has them.
    """

    image: jax.Array  # (b, h, w, c)
    mask: jax.Array  # (b, h, w, 1)
    noised: bool = True


class Steps(NamedTuple):
    """Levels of the steps, and the rule by which they are made.

    The last step returns its x0 at a level of `cleanest` nats or more, which each is by default,
    and else what the rule makes of it, with the rule's noise.
    """

    rule: StepRule
    levels: Levels
    cleanest: float = -np.inf


class SamplerState(NamedTuple):
    """Images between two steps, (b, h, w, c), float32."""

    keys: jax.Array  # (b,)
    z: jax.Array
    x0: jax.Array  # the last step's estimate of the image; after all steps, the image
    made: jax.Array  # steps so far, an int32 scalar


def init_state(
    keys: Keys,
    sampler_params: SamplerParams,
    init_image: Image,
    *,
    levels: Levels,
    beginning: Beginning = "noise",
) -> SamplerState:
    """The state before step `first`: what `beginning` says if that is the first of all, else
    `init_image` with the noise of its level.

    Shapes: keys (b,); init_image (b, h, w, c), read for its shape alone where the noise is pure.
    Image i's noise depends on keys[i] alone.
    """
    first = sampler_params.first
    eps = rng.normal_each(_fold(keys, "start", 0), init_image.shape[1:])
    alpha, sigma = alpha_sigma(levels(_row(first), sampler_params.steps))
    if beginning == "unit_noise":
        sigma = jnp.where(first > 0, sigma, 1.0)
    if beginning != "image":
        alpha = jnp.where(first > 0, alpha, 0.0)
    z = alpha * init_image + sigma * eps
    return SamplerState(keys, z, init_image, jnp.int32(0))


def sample(
    denoise: Callable[..., Image | Denoised],
    state: SamplerState,
    sampler_params: SamplerParams,
    *,
    steps: Steps,
    known: KnownPixels | None = None,
) -> SamplerState:
    """The state after the steps `first` to `last`; image i depends on its key alone.

    `denoise` is called once a step (twice by "edm_heun"); the last step of all returns its x0 as
    it is. Known pixels are noised again for every step and exact in its x0; every step is made
    `num_resamples` times, and the noise between its levels is put back before each repetition.
    Source: RePaint (arXiv:2201.09865), algorithm 1. Differs from the paper: x0 has the known pixels
    too, so that they keep to their level within a step, as well.
    """
    seen = _with_known(denoise, known)
    body = functools.partial(_step, seen=seen, given=sampler_params, steps=steps, known=known)
    return jax.lax.fori_loop(sampler_params.first, sampler_params.last, body, state)


def _step(
    index: jax.Array,
    now: SamplerState,
    *,
    seen: Seen,
    given: SamplerParams,
    steps: Steps,
    known: KnownPixels | None,
) -> SamplerState:
    """The state after the step `index`, and its repetitions."""

    def level(index: jax.Array) -> LogSNR:
        return jnp.broadcast_to(steps.levels(_row(index), given.steps), now.keys.shape)

    logsnr_t, logsnr_s = level(index), level(index + 1)
    logsnr_prev = jnp.where(now.made == 0, logsnr_t, level(index - 1))
    is_last = index == given.steps - 1
    is_finished = is_last & (logsnr_t[0] >= steps.cleanest)

    def once(z: Image, keys: Keys) -> tuple[Image, Image]:
        if known is not None:
            z = jnp.where(known.mask, _at_level(known, keys, logsnr_t), z)
        x0, share = seen(z, logsnr_t)
        x0_prev = jnp.where(now.made == 0, x0, now.x0)
        gamma = given.stochasticity if share is None else share
        step = StepInputs(z, x0, x0_prev, logsnr_prev, logsnr_t, logsnr_s, keys, gamma)
        rule = functools.partial(steps.rule, step, lambda z, logsnr: seen(z, logsnr)[0])
        z_s = jax.lax.cond(is_finished, lambda: x0, rule)
        ended = z_s if known is None else jnp.where(known.mask, known.image, z_s)
        return z_s, jnp.where(is_last, ended, x0)

    def again(repeat: jax.Array, found: tuple[Image, Image]) -> tuple[Image, Image]:
        keys = _fold(_fold(now.keys, "again", index), "repeat", repeat)
        return once(renoise(found[0], _fold(keys, "back", 0), logsnr_s, logsnr_t), keys)

    found = once(now.z, _fold(now.keys, "step", index))
    if known is not None:
        repeats = jnp.where(is_last, 1, given.num_resamples)
        found = jax.lax.fori_loop(1, repeats, again, found)
    return SamplerState(now.keys, *found, now.made + 1)


def renoise(z_s: Image, keys: Keys, logsnr_s: LogSNR, logsnr_t: LogSNR) -> Image:
    """A draw of z_t given z_s: the noise of one step put back.

    Shapes: z_s and the result (b, h, w, c); keys and levels (b,).
    """
    (alpha_s, _), (alpha_t, _) = alpha_sigma(logsnr_s), alpha_sigma(logsnr_t)
    std = jnp.sqrt(schedules.transition_variance(logsnr_s, logsnr_t))
    return alpha_t / alpha_s * z_s + std * rng.normal_each(keys, z_s.shape[1:])


def _with_known(denoise: Callable[..., Image | Denoised], known: KnownPixels | None) -> Seen:
    """`denoise` in float32, whose x0 has the known pixels; and the variance's share, if any."""

    def seen(z: Image, logsnr: LogSNR) -> tuple[Image, jax.Array | None]:
        found = denoise(z, logsnr)
        x0, share = found if isinstance(found, Denoised) else (found, None)
        x0 = x0.astype(jnp.float32)
        return x0 if known is None else jnp.where(known.mask, known.image, x0), share

    return seen


def _row(index: Any) -> jax.Array:
    return jnp.asarray(index)[None]


def _at_level(known: KnownPixels, keys: Keys, logsnr: LogSNR) -> Image:
    """Known pixels as a step sees them, with noise that is drawn for it unless they stay clean."""
    if not known.noised:
        return known.image
    eps = rng.normal_each(_fold(keys, "known", 0), known.image.shape[1:])
    return schedules.add_noise(known.image, eps, logsnr)


def _fold(keys: Keys, name: str, index: int | jax.Array) -> Keys:
    """Each image's key called `name` at `index`."""

    def one(key: RandomKey) -> RandomKey:
        return rng.fold(key, name, index)

    return jax.vmap(one)(keys)
