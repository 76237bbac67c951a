"""The noise that a network predicts, for losses and samplers of one's own: `TrainedStage.predict`.

Names and ranges are those of diffusers, whose arrays have channels before height and width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from imagen_jax import config
from imagen_jax.config.diffusion import BETAS
from imagen_jax.diffusion import prediction, schedules
from imagen_jax.discrete_schedule import STEPS
from imagen_jax.types import Image, LogSNR, Predict


class Guidance(NamedTuple):
    """Classifier-free guidance: eps of the text, led away from that of `negative`.

    Units: weight 1 is the text's eps alone, 0 the negative's; diffusers' `guidance_scale`.
    """

    negative: Any  # as the text
    weight: Any  # a scalar, traced or not


class LowRes(NamedTuple):
    """The low-resolution image of a super-resolution stage, as the network sees it.

    Enlarged to z's size and noised, in diffusers the last three channels of `sample`.
    """

    image: Any  # (b, h, w, 3) in [-1, 1] before its noise
    t: Any  # of its noise, as that of z; in diffusers `class_labels`


class Predicted(NamedTuple):
    """What a network predicts, float32."""

    eps: jax.Array  # (b, h, w, 3)
    variance: jax.Array | None  # (b, h, w, 3) in about [-1, 1], the smallest to the largest


def find_logsnr(t: Any, batch: int, *, schedule: config.NoiseSchedule) -> LogSNR:
    """Return the level of time steps 0 to 999, or of times where the schedule is continuous.

    Shapes: t a scalar or (b,); result (b,). Units: a continuous t is in [0, 1].
    """
    times = jnp.broadcast_to(jnp.asarray(t, jnp.float32), (batch,))
    if schedule.kind in BETAS:
        times = times / (STEPS - 1)
    return schedules.logsnr(times, schedule=schedule)


def read_captions(text: Any) -> tuple[Any, Any, Any]:
    """Captions as a network takes them, of `EncodedText` or of an array whose every row counts."""
    if isinstance(text, tuple):
        return jnp.asarray(text[0]), jnp.asarray(text[1]), jnp.asarray(text[2])
    rows, tokens = text.shape[:2]
    return jnp.asarray(text), jnp.ones((rows, tokens), jnp.bool_), jnp.ones((rows,), jnp.bool_)


def to_eps(
    predict: Predict, z: Image, logsnr: LogSNR, *, diffusion: config.Diffusion
) -> tuple[Float32[Array, "b h w c"], Float32[Array, "b h w o"]]:
    """Return eps, and the channels behind it, of a network that predicts it, x0 or v."""
    output = predict(z, logsnr)
    output, rest = output[..., : z.shape[-1]], output[..., z.shape[-1] :]
    if diffusion.predicts != "eps":
        x0 = prediction.to_x0(output, z, logsnr, predicts=diffusion.predicts)
        output = prediction.from_x0(x0, z, logsnr, predicts="eps")
    return output, rest


def guide(halves: jax.Array, weight: Any) -> jax.Array:
    """Guide eps: (2b, h, w, c), the text's before the negative's, to (b, h, w, c)."""
    positive, negative = jnp.split(halves, 2)
    return negative + weight * (positive - negative)
