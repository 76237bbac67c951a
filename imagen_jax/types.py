"""The array vocabulary: one name per quantity, with shape and dtype.

Glossary (`b h w c` is batch, height, width, channels; `n` tokens; `d` text width)

| name | meaning | range, unit |
|---|---|---|
| `pixels` | image at the edges of the program | uint8, 0-255 |
| `x0` | clean image | [-1, 1] |
| `z`, `z_t`, `z_s` | noisy image, s < t | alpha * x0 + sigma * eps |
| `eps` | noise | standard normal |
| `v` | alpha * eps - sigma * x0 | |
| `t`, `s` | time, only in `diffusion/` | 0 clean, 1 noise |
| `logsnr` | ln(alpha^2 / sigma^2), falls with t | nats, +-20 by default |
| `alpha`, `sigma` | signal and noise scale, (b, 1, 1, 1) | squares sum to 1 |
| `predicts` | what the network outputs | "eps", "x0", "v" |
| `low_res` | low-resolution input, upsampled to the stage | [-1, 1] |
| `aug_level` | noise put on `low_res` | 0 none, 1 all |
| `aug_logsnr` | its logsnr; what the model sees | nats |
| `guidance_weight` | w * cond + (1 - w) * uncond | 1 is off |
| `percentile` | dynamic threshold | (0, 100]: 99.5, never 0.995 |
| `stochasticity` | gamma of Imagen app. A | 0 small variance, 1 large |
| `tokens`, `text_mask` | ids; true at real tokens | |
| `text`, `text_pooled` | encodings; their pooled vector | |
| `text_drop_rate` | share of captions nulled in training | [0, 1] |
| `predict` | `(z, logsnr) -> prediction`, the network with its conditioning bound | |
| `denoise` | `(z, logsnr) -> x0`, guided and thresholded | |
| `params`, `ema` | trained and averaged parameters | float32 |
| `key` | one-use typed random key | |
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Key, UInt8

Pixels = UInt8[np.ndarray, "b h w 3"]  # at the edges of the program: numpy, never a device array
Image = Float[Array, "b h w c"]
Features = Float[Array, "b h w c"]
Scale = Float32[Array, "b 1 1 1"]
LogSNR = Float32[Array, " b"]
Time = Float32[Array, " b"]
AugLevel = Float32[Array, " b"]
Embedding = Float[Array, "b e"]
TextEmbedding = Float[Array, "b n d"]
TextMask = Bool[Array, "b n"]
Tokens = Int32[Array, "b n"]
Segments = Int32[Array, "b n"]  # which caption of its row a token belongs to, from 1; 0: padding
RandomKey = Key[Array, ""]
Keys = Key[Array, " b"]  # one key per image, so that an image does not depend on its neighbours
Scalar = Float32[Array, ""]
Number = float | np.floating | Float[Array, ""]  # known when traced, or not

Params = Any  # a pytree of float32 arrays; Linen's nested dict
Predict = Callable[[jax.Array, jax.Array], jax.Array]
Denoise = Callable[[jax.Array, jax.Array], jax.Array]


@runtime_checkable
class Network(Protocol):
    """A network as training and sampling call it; Linen modules are such networks.

    `apply({"params": params}, z, logsnr, cond)` predicts; with `method="encode_text"` it takes
    text, text_mask and has_text and gives the conditioning. `models.condition` and
    `models.predictor` are the callers.
    """

    def apply(self, variables: Any, *arguments: Any, **options: Any) -> Any: ...


@runtime_checkable
class Conditioned(Protocol):
    """The conditioning of a network; `low_res` is None for a base stage."""

    low_res: Any
