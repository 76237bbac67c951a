"""The sampling loop: any step rule over any noise levels, from noise or an image (appendix A).

Inpainting (RePaint, arXiv:2201.09865) is here, too: known pixels and repeated steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from imagen_jax import rng
from imagen_jax.diffusion import schedules
from imagen_jax.diffusion.samplers import SamplerParams, StepInputs, StepRule
from imagen_jax.diffusion.schedules import alpha_sigma
from imagen_jax.types import Denoise, Image, Keys, LogSNR, RandomKey

# (indices of steps (b,), number of steps) -> their levels (b,), as `spacing.logsnr_at`.
Levels = Callable[[jax.Array, Any], LogSNR]
# Pixels (b, h, w, c) that the image has to have, where the mask (b, h, w, 1) is true.
KnownPixels = tuple[jax.Array, jax.Array]


class SamplerState(NamedTuple):
    """Images between two steps, (b, h, w, c), float32."""

    keys: jax.Array  # (b,)
    z: jax.Array
    x0: jax.Array  # the last step's estimate of the image; after all steps, the image
    made: jax.Array  # steps so far, an int32 scalar


def init_state(
    keys: Keys, sampler_params: SamplerParams, init_image: Image, *, levels: Levels
) -> SamplerState:
    """The state before step `first`: pure noise if that is the first of all, else `init_image`
    with the noise of its level.

    Shapes: keys (b,); init_image (b, h, w, c), read for its shape alone where the noise is pure.
    Image i's noise depends on keys[i] alone.
    """
    first = sampler_params.first
    eps = rng.normal_each(_fold(keys, "start", 0), init_image.shape[1:])
    alpha, sigma = alpha_sigma(levels(_row(first), sampler_params.steps))
    z = jnp.where(first > 0, alpha, 0.0) * init_image + sigma * eps
    return SamplerState(keys, z, init_image, jnp.int32(0))


def sample(
    denoise: Denoise,
    state: SamplerState,
    sampler_params: SamplerParams,
    *,
    levels: Levels,
    step_rule: StepRule,
    known: KnownPixels | None = None,
) -> SamplerState:
    """The state after the steps `first` to `last`; image i depends on its key alone.

    `denoise` is called once a step (twice by "edm_heun"); the last step of all returns its x0 as
    it is. Known pixels are noised again for every step and exact in its x0; every step is made
    `num_resamples` times, and the noise between its levels is put back before each repetition.
    Source: RePaint (arXiv:2201.09865), algorithm 1. Differs from the paper: x0 has the known pixels
    too, so that they keep to their level within a step, as well.
    """
    given, seen = sampler_params, _with_known(denoise, known)

    def level(index: jax.Array) -> LogSNR:
        return jnp.broadcast_to(levels(_row(index), given.steps), state.keys.shape)

    def body(index: jax.Array, now: SamplerState) -> SamplerState:
        logsnr_t, logsnr_s = level(index), level(index + 1)
        logsnr_prev = jnp.where(now.made == 0, logsnr_t, level(index - 1))
        is_last = index == given.steps - 1

        def once(z: Image, keys: Keys) -> tuple[Image, Image]:
            if known is not None:
                z = jnp.where(known[1], _noised(known[0], keys, logsnr_t), z)
            x0 = seen(z, logsnr_t)
            x0_prev = jnp.where(now.made == 0, x0, now.x0)
            step = StepInputs(
                z, x0, x0_prev, logsnr_prev, logsnr_t, logsnr_s, keys, given.stochasticity
            )
            return jax.lax.cond(is_last, lambda: x0, lambda: step_rule(step, seen)), x0

        def again(repeat: jax.Array, found: tuple[Image, Image]) -> tuple[Image, Image]:
            keys = _fold(_fold(now.keys, "again", index), "repeat", repeat)
            return once(renoise(found[0], _fold(keys, "back", 0), logsnr_s, logsnr_t), keys)

        found = once(now.z, _fold(now.keys, "step", index))
        if known is not None:
            repeats = jnp.where(is_last, 1, given.num_resamples)
            found = jax.lax.fori_loop(1, repeats, again, found)
        return SamplerState(now.keys, *found, now.made + 1)

    return jax.lax.fori_loop(given.first, given.last, body, state)


def renoise(z_s: Image, keys: Keys, logsnr_s: LogSNR, logsnr_t: LogSNR) -> Image:
    """A draw of z_t given z_s: the noise of one step put back.

    Shapes: z_s and the result (b, h, w, c); keys and levels (b,).
    """
    (alpha_s, _), (alpha_t, _) = alpha_sigma(logsnr_s), alpha_sigma(logsnr_t)
    std = jnp.sqrt(schedules.transition_variance(logsnr_s, logsnr_t))
    return alpha_t / alpha_s * z_s + std * rng.normal_each(keys, z_s.shape[1:])


def _with_known(denoise: Denoise, known: KnownPixels | None) -> Denoise:
    """`denoise` in float32, whose x0 has the known pixels."""

    def seen(z: Image, logsnr: LogSNR) -> Image:
        x0 = denoise(z, logsnr).astype(jnp.float32)
        return x0 if known is None else jnp.where(known[1], known[0], x0)

    return seen


def _row(index: Any) -> jax.Array:
    return jnp.asarray(index)[None]


def _noised(x0: Image, keys: Keys, logsnr: LogSNR) -> Image:
    """z at a level, with noise that is drawn for it."""
    return schedules.add_noise(x0, rng.normal_each(_fold(keys, "known", 0), x0.shape[1:]), logsnr)


def _fold(keys: Keys, name: str, index: int | jax.Array) -> Keys:
    """Each image's key called `name` at `index`."""

    def one(key: RandomKey) -> RandomKey:
        return rng.fold(key, name, index)

    return jax.vmap(one)(keys)
