"""Attention of an image to itself and to the text (Imagen sections 2.5, D.3.1)."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from imagen_jax.models.dense import Dense
from imagen_jax.models.layers import EPSILON, Norm
from imagen_jax.types import TextMask

MASKED = -1e30  # finite, so that a row without any true token gives no NaN
SLACK = 2.0**-8  # of a largest logit that bfloat16 rounded
HIGHEST = 60.0  # exponent: only logits above 8000 have so much slack, and sums stay finite

KeysValues = tuple[Float[Array, "b n heads k"], Float[Array, "b n heads k"]]


def attend(
    query: Float[Array, "b q heads k"],
    keys: Float[Array, "b n heads k"],
    values: Float[Array, "b n heads k"],
    mask: Bool[Array, "b n"] | None,
    precision: jax.lax.Precision | None = None,
) -> Float[Array, "b q heads k"]:
    """Multi-head attention; logits and softmax in float32, keys where `mask` is false ignored.

    Rounded logits would cost precision: their error grows with their size, and that of the weights
    is the exponential of it. For bfloat16 they are made twice, rounded to find the largest and in
    float32 for the exponential, where they never lie in memory: its traffic is what attention over
    pixels waits for, not products. (In float32 both are one.) The weights are rounded for the
    product with the values, and divided by their sum after it, where there is less to divide.
    """
    product = functools.partial(jnp.einsum, "bqhk,bnhk->bhqn", precision=precision)
    rough = _only(mask, product(*jax.lax.stop_gradient((query, keys))))
    shift = jnp.max(rough, axis=-1, keepdims=True).astype(jnp.float32)
    shift -= SLACK * jnp.abs(shift)  # not above the largest, whichever way that was rounded
    logits = _only(mask, product(query, keys, preferred_element_type=jnp.float32))
    weights = _exp((logits - shift) * query.shape[-1] ** -0.5, values.dtype)
    total = jnp.sum(weights, axis=-1, dtype=jnp.float32)  # (b, heads, q)
    mixed = jnp.einsum(
        "bhqn,bnhk->bqhk",
        weights,
        values,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    return (mixed / jnp.moveaxis(total, 1, 2)[..., None]).astype(values.dtype)


def _only(mask: Bool[Array, "b n"] | None, logits: Float[Array, "b heads q n"]) -> Any:
    """Logits whose keys exist; the others' are as good as minus infinity."""
    if mask is None:
        return logits
    return jnp.where(mask[:, None, None, :], logits, jnp.asarray(MASKED, logits.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _exp(x: Float32[Array, "..."], dtype: Any) -> Float[Array, "..."]:
    """The exponential, rounded. Its gradient reads what is rounded, and keeps nothing wider."""
    return jnp.exp(jnp.minimum(x, HIGHEST)).astype(dtype)


@_exp.defjvp
def _exp_jvp(dtype: Any, primals: Any, tangents: Any) -> Any:
    found = _exp(*primals, dtype)
    return found, found * tangents[0].astype(dtype)


def split_heads(x: Float[Array, "b n d"], heads: int) -> Float[Array, "b n heads k"]:
    """Consecutive channels to heads.

    A TPU's products of queries and keys want pixels in the lanes. Transposed first, channels are
    split where they are rows; split first, every value is moved twice.
    """
    b, n, width = x.shape

    def by_rows(x: Float[Array, "b n d"]) -> Float[Array, "b n heads k"]:
        return x.swapaxes(1, 2).reshape(b, heads, width // heads, n).transpose(0, 3, 1, 2)

    def directly(x: Float[Array, "b n d"]) -> Float[Array, "b n heads k"]:
        return x.reshape(b, n, heads, width // heads)

    return jax.lax.platform_dependent(x, tpu=by_rows, default=directly)


def join_heads(x: Float[Array, "b n heads k"]) -> Float[Array, "b n d"]:
    """The inverse of `split_heads`, by the same way."""
    b, n, heads, width = x.shape

    def by_rows(x: Float[Array, "b n heads k"]) -> Float[Array, "b n d"]:
        return x.transpose(0, 2, 3, 1).reshape(b, heads * width, n).swapaxes(1, 2)

    def directly(x: Float[Array, "b n heads k"]) -> Float[Array, "b n d"]:
        return x.reshape(b, n, heads * width)

    return jax.lax.platform_dependent(x, tpu=by_rows, default=directly)


class Attention(nn.Module):
    """An image's pixels attend to its pixels, to the text, or to both in one softmax.

    Text keys and values arrive projected (`text_conditioning.Conditioner`), as they depend on the
    prompt alone. The output projection starts at zero, and the residual sum is plain in every
    network: the paper scales only its Efficient U-Net, and there only "skip connections".
    Source: Imagen app. D.3.1 for the joined keys.
    """

    heads: int
    head_dim: int
    norm_groups: int
    dtype: Any
    image_keys: bool = True
    epsilon: float = EPSILON  # of the norm

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], text: KeysValues | None, text_mask: TextMask | None
    ) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        y = Norm(self.norm_groups, self.epsilon, name="norm")(x)
        query = self.project("query", y)
        pairs = [(self.project("key", y), self.project("value", y))] if self.image_keys else []
        masks: list[Any] = [jnp.ones((b, h * w), jnp.bool_)] if self.image_keys else []
        if text is not None:
            pairs, masks = [*pairs, text], [*masks, text_mask]
        keys, values = (jnp.concatenate(parts, axis=1) for parts in zip(*pairs, strict=True))
        mask = None if text_mask is None else jnp.concatenate(masks, axis=1)
        mixed = join_heads(attend(query, keys, values, mask)).reshape(b, h, w, -1)
        out = Dense(c, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(mixed)
        return x + out

    def project(self, name: str, y: Float[Array, "b h w c"]) -> Float[Array, "b n heads k"]:
        """Queries, keys or values of the image, n = h * w. Flattened last: height stays split."""
        projected = Dense(self.heads * self.head_dim, dtype=self.dtype, name=name)(y)
        return split_heads(projected.reshape(y.shape[0], -1, projected.shape[-1]), self.heads)


class FeedForward(nn.Module):
    """Two dense layers behind a norm, added to their input; the second starts at zero."""

    hidden: int
    norm_groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        y = Norm(self.norm_groups, name="norm")(x)
        y = nn.swish(Dense(self.hidden, dtype=self.dtype, name="dense_0")(y))
        zeros = nn.initializers.zeros
        return x + Dense(x.shape[-1], dtype=self.dtype, kernel_init=zeros, name="dense_1")(y)


class AttentionBlock(nn.Module):
    """All the attention after a residual block.

    `joined`: text keys join the image's. Otherwise image and text each get a layer, if asked
    for: `image_keys` asks for the first, text given for the second.
    """

    heads: int
    head_dim: int
    norm_groups: int
    dtype: Any
    image_keys: bool = True
    joined: bool = True
    feed_forward: int = 0  # its width; 0: none

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], text: KeysValues | None, text_mask: TextMask | None
    ) -> Float[Array, "b h w c"]:
        sizes = (self.heads, self.head_dim, self.norm_groups, self.dtype)
        if self.joined and self.image_keys and text is not None:
            x = Attention(*sizes, name="joined")(x, text, text_mask)
        else:
            if self.image_keys:
                x = Attention(*sizes, name="image")(x, None, None)
            if text is not None:
                x = Attention(*sizes, image_keys=False, name="text")(x, text, text_mask)
        if self.feed_forward:
            x = FeedForward(self.feed_forward, self.norm_groups, self.dtype, name="ffn")(x)
        return x
