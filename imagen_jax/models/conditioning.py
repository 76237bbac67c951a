"""A network's conditioning: text, noise levels and low-resolution image, and where they enter."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float

from imagen_jax.models.layers import GuidanceEmbedding, TimeEmbed, TimeEmbedding
from imagen_jax.types import Image, LogSNR

GUIDANCE = "guidance"  # name of the embedding of the guidance weight
AXES = ("batch", "height", None, None)  # of images, by the names that `parallel.axes.RULES` has


@flax.struct.dataclass
class Conditioning:
    """A network's conditioning: a pytree whose every leaf has the batch first.

    Fields are not checked at run time, so that shardings and shapes may stand in for arrays.
    """

    kv: Any  # {layer: (keys, values)}, each (b, n, heads, head_dim), by the layer's name
    text_mask: Any  # (b, n) bool
    pooled: Any  # (b, cond_channels) float32, or None
    low_res: Any = None  # (b, h, w, c), upsampled and noised, or None
    aug_logsnr: Any = None  # (b,) float32, or None
    guidance_weight: Any = None  # (b,) float32 of a distilled network, or None


class NoiseEmbedding(nn.Module):
    """The vector that conditions every block: noise level, augmentation level and pooled text.

    The guidance weight of a distilled network is in it, too.
    Source: Imagen sections 2.4 and 2.5; that the three are summed is our reading of fig. A.28.
    """

    features: int
    width: int
    kind: TimeEmbed
    dtype: Any

    @nn.compact
    def __call__(self, logsnr: LogSNR, cond: Conditioning) -> Float[Array, "b e"]:
        sizes = (self.features, self.width, self.kind)
        emb = TimeEmbedding(*sizes, name="time")(logsnr)
        if cond.aug_logsnr is not None:
            emb = emb + TimeEmbedding(*sizes, name="aug")(cond.aug_logsnr)
        if cond.guidance_weight is not None:
            emb = emb + GuidanceEmbedding(*sizes[:2], name=GUIDANCE)(cond.guidance_weight)
        if cond.pooled is not None:
            emb = emb + cond.pooled
        return emb.astype(self.dtype)


def network_input(z: Image, cond: Conditioning) -> Float[Array, "b h w i"]:
    """Join the noisy image and the low-resolution one, if there is one, by channels.

    Under a mesh, batch and height stay split here, and so in all that is computed from it.
    Errors: ValueError unless `low_res` and `aug_logsnr` come together, at z's size.
    """
    if (cond.low_res is None) != (cond.aug_logsnr is None):
        raise ValueError(
            f"low_res is {'absent' if cond.low_res is None else 'given'} but aug_logsnr is "
            f"{'absent' if cond.aug_logsnr is None else 'given'}: they come together"
        )
    if cond.low_res is None:
        return nn.with_logical_constraint(z, AXES)
    if cond.low_res.shape[:3] != z.shape[:3]:
        raise ValueError(
            f"low_res {cond.low_res.shape} is not of z's size {z.shape}: upsample it first"
        )
    both = jnp.concatenate([z, cond.low_res.astype(z.dtype)], axis=-1)
    return nn.with_logical_constraint(both, AXES)
