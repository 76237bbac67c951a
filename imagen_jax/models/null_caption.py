"""The null caption: what stands for no text, which guidance and caption dropout need."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from imagen_jax import config
from imagen_jax.types import TextEmbedding, TextMask

EMPTY_PROMPT = "empty_prompt"  # name of the parameter that holds its encoding


class NullCaption(nn.Module):
    """Replaces text and mask of rows without caption; zeroes padding, whatever it holds."""

    options: config.TextConditioning

    @nn.compact
    def __call__(
        self, text: TextEmbedding, text_mask: TextMask, has_text: Bool[Array, " b"]
    ) -> tuple[Float32[Array, "b n d"], TextMask]:
        null = jnp.zeros((1, 1, text.shape[-1]))
        if self.options.null == "learned":
            row = self.param("embedding", nn.initializers.normal(1.0), (text.shape[-1],))
            null = row[None, None, :]
        if self.options.null == "empty_prompt":
            # A constant among the parameters: saved, averaged and exported as they are.
            row = self.param(EMPTY_PROMPT, nn.initializers.zeros, (text.shape[-1],))
            first = (jnp.arange(text.shape[1]) == 0)[None, :, None]
            null = jnp.where(first, jax.lax.stop_gradient(row)[None, None, :], 0.0)
        null_mask = jnp.ones_like(text_mask)
        if self.options.null_mask == "first_token":
            null_mask = null_mask & (jnp.arange(text.shape[1]) == 0)[None, :]
        text = jnp.where(text_mask[:, :, None], text.astype(jnp.float32), 0.0)
        text = jnp.where(has_text[:, None, None], text, null)  # null is (1, 1, d) or (1, n, d)
        return text, jnp.where(has_text[:, None], text_mask, null_mask)
