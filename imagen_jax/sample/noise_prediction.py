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


class NetworkInputs(NamedTuple):
    """What a network sees, batch-first: noisy images, their level, and what they depend on."""

    z: Image
    logsnr: LogSNR
    captions: tuple[Any, Any, Any]
    low_res: Image | None
    aug_logsnr: LogSNR | None

    def with_negative(self, negative: Any) -> "NetworkInputs":
        """The same twice over, with the texts to lead away from in the second half."""
        other = self._replace(captions=read_captions(negative))
        return jax.tree.map(lambda *x: jnp.concatenate(x), self, other)


def network_inputs(
    stage: config.Stage, z: Image, t: Any, text: Any, low_res: LowRes | None
) -> NetworkInputs:
    """Return what `stage`'s network sees of the arguments of `TrainedStage.predict`.

    Errors: ValueError, as there.
    """
    if stage.has_guidance_input:
        raise ValueError(
            f"{stage.name} is distilled for guided images and predicts no noise of the text "
            "alone: give its teacher"
        )
    if stage.is_super_resolution != (low_res is not None):
        needs = "enlarges no image: leave" if low_res else "enlarges an image: give"
        raise ValueError(f"{stage.name} {needs} low_res")
    batch, seen, aug_logsnr = z.shape[0], None, None
    if low_res is not None:
        seen = jnp.asarray(low_res.image)
        noise = stage.noise_conditioning.schedule
        aug_logsnr = find_logsnr(low_res.t, batch, schedule=noise)
    logsnr = find_logsnr(t, batch, schedule=stage.diffusion.schedule)
    return NetworkInputs(z, logsnr, read_captions(text), seen, aug_logsnr)


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
