"""Text to conditioning: null captions, bottleneck, positions, refiner, pooling, keys and values.

Everything that depends on the prompt alone is computed here, once per prompt: pooled text and each
attention layer's text keys and values (Imagen section 2.5, appendix D.3.1).
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from imagen_jax import config
from imagen_jax.models.attention import KeysValues, attend
from imagen_jax.models.conditioning import Conditioning
from imagen_jax.models.dense import Dense
from imagen_jax.models.layers import EPSILON, EXACT, exact_dense
from imagen_jax.models.null_caption import NullCaption
from imagen_jax.types import Embedding, TextEmbedding, TextMask

POSITIONS_STD = 0.1  # next to the unit variance that the norm gives to the text
REFINER_HIDDEN = 2  # widths of the text in a refiner's feed-forward layer


@dataclass(frozen=True)
class TextLayer:
    """A layer that attends to the text; its name is that of the attention block."""

    name: str
    heads: int
    head_dim: int


class Conditioner(nn.Module):
    """Text to `Conditioning`: null captions, bottleneck, positions, refiner, pooling, keys, values.

    Differs from the paper: where `has_text` is false the mask is a fixed one as well. Keeping the
    caption's would leak its length, and an empty one would leave cross-attention nothing.
    """

    options: config.TextConditioning
    layers: tuple[TextLayer, ...]
    width: int  # of the pooled vector
    head_channels: int  # of the pooling and of the refiner
    dtype: Any

    @nn.compact
    def __call__(
        self, text: TextEmbedding, text_mask: TextMask, has_text: Bool[Array, " b"]
    ) -> Conditioning:
        options = self.options
        text, text_mask = NullCaption(options, name="null")(text, text_mask, has_text)
        if options.bottleneck is not None:
            text = exact_dense(options.bottleneck, name="bottleneck")(text)
        if options.positions:
            text = text + Positions(options.positions, name="positions")(text)
        for k in range(options.refiner_layers):
            text = RefinerLayer(self.head_channels, name=f"refiner_{k}")(text, text_mask)
        kv = {
            layer.name: TextKeysValues(layer, options.norm, self.dtype, name=layer.name)(text)
            for layer in self.layers
        }
        pooled = None
        if options.pool != "none":
            pool = Pool(options, self.width, self.head_channels, name="pool")
            pooled = pool(text, text_mask)
        return Conditioning(kv=kv, text_mask=text_mask, pooled=pooled)


class Positions(nn.Module):
    """A learned vector for each position in the caption."""

    length: int

    @nn.compact
    def __call__(self, text: Float32[Array, "b n d"]) -> Float32[Array, "1 n d"]:
        tokens = text.shape[1]
        if tokens > self.length:
            raise ValueError(f"{tokens} tokens exceed text.positions={self.length}")
        init = nn.initializers.normal(POSITIONS_STD)
        table = self.param("embedding", init, (self.length, text.shape[-1]))
        return table[None, :tokens]


class RefinerLayer(nn.Module):
    """A transformer layer over the real tokens: self-attention and two dense layers. In float32.

    Differs from the paper, which reads T5 as it is: a small encoder hides in a product of features
    which word belongs to which object, and projections to keys and values are linear.
    Errors: ValueError unless `head_channels` divides the text's width.
    """

    head_channels: int

    @nn.compact
    def __call__(self, text: Float[Array, "b n d"], text_mask: TextMask) -> Float[Array, "b n d"]:
        width = text.shape[-1]
        if width % self.head_channels:
            raise ValueError(
                f"text.refiner_layers: head channels {self.head_channels} must divide the width of "
                f"the text, {width}; change them or text.bottleneck"
            )
        y = nn.LayerNorm(epsilon=EPSILON, name="attention_norm")(text)
        split = (*text.shape[:2], width // self.head_channels, self.head_channels)
        query, keys, values = (
            exact_dense(width, name=name)(y).reshape(split) for name in ("query", "key", "value")
        )
        mixed = attend(query, keys, values, text_mask, EXACT).reshape(text.shape)
        text = text + exact_dense(width, name="attention_out")(mixed)
        y = nn.LayerNorm(epsilon=EPSILON, name="ffn_norm")(text)
        y = nn.swish(exact_dense(REFINER_HIDDEN * width, name="ffn_in")(y))
        return text + exact_dense(width, name="ffn_out")(y)


class TextNorm(nn.Module):
    """LayerNorm of each token, or nothing; never over tokens, which would let padding in."""

    on: bool

    @nn.compact
    def __call__(self, text: Float32[Array, "b n d"]) -> Float32[Array, "b n d"]:
        return nn.LayerNorm(epsilon=EPSILON, name="layer")(text) if self.on else text


class TextKeysValues(nn.Module):
    """One layer's text keys and values, from its own norm and projections."""

    layer: TextLayer
    norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, text: Float32[Array, "b n d"]) -> KeysValues:
        text = TextNorm(self.norm, name="norm")(text).astype(self.dtype)
        heads, head_dim = self.layer.heads, self.layer.head_dim
        keys = Dense(heads * head_dim, dtype=self.dtype, name="key")(text)
        values = Dense(heads * head_dim, dtype=self.dtype, name="value")(text)
        shape = (*text.shape[:2], heads, head_dim)
        return keys.reshape(shape), values.reshape(shape)


class Pool(nn.Module):
    """Text to one vector for the time embedding; padding is masked. All in float32.

    Source: Imagen app. F.1 says only "attention"; the learned query is our reading.
    """

    options: config.TextConditioning
    width: int
    head_channels: int

    @nn.compact
    def __call__(self, text: Float32[Array, "b n d"], text_mask: TextMask) -> Embedding:
        text = TextNorm(self.options.norm, name="norm")(text)
        if self.options.pool == "mean":
            return exact_dense(self.width, name="out")(mean_over_tokens(text, text_mask))
        b, n, heads = *text.shape[:2], self.width // self.head_channels
        row = self.param("query", nn.initializers.normal(1.0), (self.width,))
        query = jnp.broadcast_to(row[None, :], (b, self.width))
        if self.options.pool_query == "mean_plus_learned":
            query = query + exact_dense(self.width, name="mean")(mean_over_tokens(text, text_mask))
        keys = exact_dense(self.width, name="key")(text).reshape(b, n, heads, -1)
        values = exact_dense(self.width, name="value")(text).reshape(b, n, heads, -1)
        pooled = attend(query.reshape(b, 1, heads, -1), keys, values, text_mask, EXACT)
        return exact_dense(self.width, name="out")(pooled.reshape(b, self.width))


def mean_over_tokens(text: Float32[Array, "b n d"], text_mask: TextMask) -> Float32[Array, "b d"]:
    """Average over real tokens; zero where there are none."""
    weights = text_mask.astype(jnp.float32)[:, :, None]
    return (text * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1.0)
