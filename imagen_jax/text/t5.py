"""The frozen T5 encoder (section 2.1; T5 v1.1, v1.0 and umT5)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from imagen_jax.config import EncoderDtype, Padding
from imagen_jax.text.relative_positions import RelativeBias
from imagen_jax.text.tokenizer import PAD
from imagen_jax.types import Network, Params, RandomKey, Segments, TextEmbedding, TextMask, Tokens

Dtype = Literal["float32", "bfloat16"]
SCALE = "_scale"  # behind the name of a matrix of int8: what its numbers count in

EPSILON = 1e-6  # of the RMS norms
MASKED = -1e10


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """An encoder's sizes; a checkpoint's tensor shapes determine all of them."""

    vocab: int  # rows of the embedding; the tokenizer may have fewer pieces
    width: int
    layers: int
    heads: int
    head_dim: int
    mlp_width: int
    buckets: int = 32  # of relative positions
    gated: bool = True  # v1.1: gated tanh-GELU; otherwise v1.0's ReLU
    bias_per_layer: bool = False  # a table of relative positions in every layer (umT5)


SIZES = {  # of T5 v1.1, by the names that Google gave its checkpoints
    f"t5_1_1_{name}": T5Config(
        vocab=32_128, width=width, layers=layers, heads=heads, head_dim=64, mlp_width=mlp_width
    )
    for name, width, layers, heads, mlp_width in (
        ("small", 512, 8, 6, 1024),
        ("base", 768, 12, 12, 2048),
        ("large", 1024, 24, 16, 2816),
        ("xl", 2048, 24, 32, 5120),
        ("xxl", 4096, 24, 64, 10_240),
    )
}


class RMSNorm(nn.Module):
    """Root mean square norm in float32, without mean or bias."""

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + EPSILON)
        return (wide * inverse * scale.astype(jnp.float32)[None, None]).astype(x.dtype)


class Kernel(nn.Module):
    """A matrix without bias; float32 stays float32 on TPUs and GPUs too."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n i"]) -> Float[Array, "b n o"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        product = jnp.matmul(x, kernel.astype(self.dtype), precision=_precision(self.dtype))
        if not self.has_variable("params", f"kernel{SCALE}"):
            return product
        scale: jax.Array = self.get_variable("params", f"kernel{SCALE}")
        return (product.astype(jnp.float32) * scale[None, None, :]).astype(self.dtype)


class TokenEmbedder(nn.Module):
    """Rows of the embedding table; an id outside it gives zeros."""

    config: T5Config
    dtype: Any

    @nn.compact
    def __call__(self, tokens: Tokens) -> Float[Array, "b n d"]:
        shape = (self.config.vocab, self.config.width)
        table = self.param("embedding", nn.initializers.normal(1.0), shape)
        rows = table.at[tokens].get(mode="fill", fill_value=0)
        if not self.has_variable("params", f"embedding{SCALE}"):
            return rows.astype(self.dtype)
        scale: jax.Array = self.get_variable("params", f"embedding{SCALE}")
        scale = scale.at[tokens].get(mode="fill", fill_value=0)
        return (rows.astype(jnp.float32) * scale[:, :, None]).astype(self.dtype)


class SelfAttention(nn.Module):
    """Self-attention; T5 folds 1/sqrt(head_dim) into the query kernel, so no scale is here."""

    config: T5Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], bias: Float[Array, "b h n n"]
    ) -> Float[Array, "b n d"]:
        heads, head_dim = self.config.heads, self.config.head_dim
        # Heads before tokens: both products are then plain ones of matrices, twice as fast on CPUs.
        query, key, value = (
            Kernel(heads * head_dim, self.dtype, name=name)(x)
            .reshape(*x.shape[:2], heads, head_dim)
            .transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        precision = _precision(self.dtype)
        logits = jnp.einsum(
            "bhqk,bhvk->bhqv", query, key, precision=precision, preferred_element_type=jnp.float32
        )
        weights = jax.nn.softmax(logits + bias, axis=-1).astype(self.dtype)
        mixed = jnp.matmul(weights, value, precision=precision).transpose(0, 2, 1, 3)
        return Kernel(x.shape[-1], self.dtype, name="out")(mixed.reshape(*x.shape[:2], -1))


class MLP(nn.Module):
    """v1.1: gelu(x wi_0) * (x wi_1); v1.0: relu(x wi)."""

    config: T5Config
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        inner = self.config.mlp_width
        if self.config.gated:
            gate = nn.gelu(Kernel(inner, self.dtype, name="wi_0")(x), approximate=True)
            hidden = gate * Kernel(inner, self.dtype, name="wi_1")(x)
        else:
            hidden = nn.relu(Kernel(inner, self.dtype, name="wi")(x))
        return Kernel(x.shape[-1], self.dtype, name="wo")(hidden)


class Layer(nn.Module):
    """Attention and MLP, each behind its norm, with a residual path."""

    config: T5Config
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b 1 q n"],
        shared_bias: Float[Array, "1 h n n"] | None,
    ) -> Float[Array, "b n d"]:
        bias = shared_bias
        if bias is None:
            table = RelativeBias(self.config.heads, self.config.buckets, name="relpos_bias")
            bias = table(x.shape[1])
        bias = jnp.where(mask, bias, MASKED)  # (1, h, n, n) and (b, 1, q, n) to (b, h, n, n)
        normed = RMSNorm(name="pre_attention_layer_norm")(x)
        x = x + SelfAttention(self.config, self.dtype, name="attention")(normed, bias)
        return x + MLP(self.config, self.dtype, name="mlp")(RMSNorm(name="pre_mlp_layer_norm")(x))


class Encoder(nn.Module):
    """The stack of layers and the final norm."""

    config: T5Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b 1 q n"]
    ) -> Float[Array, "b n d"]:
        bias = None
        if not self.config.bias_per_layer:
            table = RelativeBias(self.config.heads, self.config.buckets, name="relpos_bias")
            bias = table(x.shape[1])
        for index in range(self.config.layers):
            layer = Layer(self.config, self.dtype, name=f"layers_{index}")
            x = layer(x, mask, bias)
        return RMSNorm(name="encoder_norm")(x)


class T5(nn.Module):
    """The whole network; submodules bear the names of T5X's tensors."""

    config: T5Config
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Tokens, mask: Bool[Array, "b 1 q n"]) -> Float[Array, "b n d"]:
        x = TokenEmbedder(self.config, self.dtype, name="token_embedder")(tokens)
        return Encoder(self.config, self.dtype, name="encoder")(x, mask)


def encode(
    params: Params,
    tokens: Tokens,
    text_mask: TextMask,
    *,
    config: T5Config,
    dtype: EncoderDtype = "float32",
    padding: Padding = "left_out",
) -> TextEmbedding:
    """Encodings of tokens, zero where `text_mask` is false unless padding is encoded, too.

    Matrices of int8 have their scales beside them; with `dtype` int8 products are in bfloat16.

    Shapes: tokens and text_mask (b, n); result (b, n, config.width) of `product_dtype(dtype)`.
    Errors: ValueError for another dtype; flax names a parameter that lacks or has another shape.
    Source: T5 v1.1; norms and softmax are float32 whatever `dtype`, and keys alone are masked.
    """
    text = _network(config, dtype).apply(_variables(params), tokens, text_mask[:, None, None, :])
    if padding == "encoded":
        return text
    return jnp.where(text_mask[:, :, None], text, jnp.zeros((), text.dtype))


def encode_packed(
    params: Params,
    tokens: Tokens,
    segments: Segments,
    *,
    config: T5Config,
    dtype: EncoderDtype = "float32",
    padding: Padding = "left_out",
) -> TextEmbedding:
    """Encodings of captions that lie one after another in rows, each as if it were alone.

    A token attends to those of its own segment. Positions are relative, so that a caption's place
    in its row does not matter. Where padding is encoded it is a part of its caption's segment, of
    which no token attends to it.
    Shapes: tokens and segments (b, n); result (b, n, config.width), zero where the segment is 0.
    Errors: as `encode`.
    """
    same = segments[:, None, :, None] == segments[:, None, None, :]  # (b, 1, n, n)
    if padding == "encoded":
        same &= (tokens != PAD)[:, None, None, :]
    text = _network(config, dtype).apply(_variables(params), tokens, same)
    return jnp.where((segments > 0)[:, :, None], text, jnp.zeros((), text.dtype))


def init(key: RandomKey, config: T5Config) -> Params:
    """Random float32 parameters; pure, so that `jax.eval_shape` and `jax.jit` apply."""
    tokens, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1, 1, 1), jnp.bool_)
    return T5(config).init(key, tokens, mask)["params"]


def parameter_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its T5X name, `encoder.layers_0.attention.query.kernel`."""
    tree = jax.eval_shape(lambda key: init(key, config), jax.random.key(0))
    leaves = jax.tree.leaves_with_path(tree)
    return {".".join(step.key for step in path): leaf.shape for path, leaf in leaves}


def product_dtype(dtype: EncoderDtype) -> Dtype:
    """The dtype of an encoder's products: of one that is kept in int8 bfloat16."""
    return "bfloat16" if dtype == "int8" else dtype


def _network(config: T5Config, dtype: EncoderDtype) -> Network:
    if dtype not in get_args(EncoderDtype):
        raise ValueError(f"dtype={dtype!r} is not one of {', '.join(get_args(EncoderDtype))}")
    return T5(config, jnp.dtype(product_dtype(dtype)))


def _variables(params: Params) -> Params:
    return {"params": jax.tree.map(jnp.asarray, params)}  # a loader's are NumPy arrays


def _precision(dtype: Any) -> jax.lax.Precision:
    """float32 means float32 on accelerators whose default matrix product is coarser."""
    full = jnp.dtype(dtype) == jnp.float32
    return jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT
