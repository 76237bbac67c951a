"""The networks: (z, logsnr, cond) to a prediction. They know nothing of diffusion.

| file | holds |
|---|---|
| `layers.py` | norm, residual block, time embedding |
| `resampling.py` | up- and down-sampling, patches |
| `attention.py` | attention to picture and text |
| `conditioning.py` | `Conditioning` and what makes it: null caption, pooling, text keys |
| `unet.py` | `UNet`, the base network |
| `efficient_unet.py` | `EfficientUNet`, super-resolution |
| `remat.py` | what the backward pass makes again |
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax import config
from imagen_jax.models.conditioning import Conditioning
from imagen_jax.models.efficient_unet import EfficientUNet
from imagen_jax.models.unet import UNet
from imagen_jax.types import Params, RandomKey

__all__ = [
    "Conditioning",
    "EfficientUNet",
    "UNet",
    "build",
    "count_parameters",
    "init",
    "parameter_shapes",
]

CHANNELS = 3


def build(options: config.UNet | config.EfficientUNet) -> UNet | EfficientUNet:
    """The network that the options describe, without parameters."""
    return {config.UNet: UNet, config.EfficientUNet: EfficientUNet}[type(options)](options)


def init(
    module: nn.Module,
    key: RandomKey,
    *,
    stage: config.Stage,
    text_width: int,
    text_length: int,
) -> Params:
    """Fresh float32 parameters; pure, so that `jax.eval_shape` and `jax.jit` apply.

    No parameter depends on the side of the pictures or on `text_length`.
    """
    side = stage.train_side
    text = jnp.zeros((1, text_length, text_width))
    text_mask = jnp.ones((1, text_length), jnp.bool_)
    image = jnp.zeros((1, side, side, CHANNELS))
    logsnr = jnp.zeros((1,))

    def run(network: UNet | EfficientUNet) -> jax.Array:
        cond = network.encode_text(text, text_mask, jnp.ones((1,), jnp.bool_))
        if stage.is_super_resolution:
            cond = cond.replace(low_res=image, aug_logsnr=logsnr)
        return network(image, logsnr, cond)

    return module.init(key, method=run)["params"]


def parameter_shapes(stage: config.Stage, text: config.Text) -> Params:
    """Shapes and dtypes of a stage's parameters; nothing is computed."""
    module = build(stage.model)
    return jax.eval_shape(
        lambda key: init(
            module, key, stage=stage, text_width=text.width, text_length=text.max_length
        ),
        jax.random.key(0),
    )


def count_parameters(params: Params) -> int:
    """Number of parameters; shapes may stand in for arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
