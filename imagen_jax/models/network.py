"""A stage's network: built, initialised, conditioned, and bound to its conditioning."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from imagen_jax import config
from imagen_jax.models.conditioning import GUIDANCE, Conditioning
from imagen_jax.models.deepfloyd_unet import DeepFloydUNet
from imagen_jax.models.efficient_unet import EfficientUNet
from imagen_jax.models.unet import UNet
from imagen_jax.types import Conditioned, Network, Params, Predict, RandomKey

CHANNELS = 3
# Parameters of DeepFloyd IF's network that float32 products read, whatever its dtype.
EXACT_PARTS = ("text/projection", "text/pool", "emb/", "head")

Options = config.UNet | config.EfficientUNet | config.DeepFloydUNet
Module = UNet | EfficientUNet | DeepFloydUNet


def build(options: Options) -> Module:
    """Build the network that the options describe, without parameters."""
    kinds: dict[type, Any] = {
        config.UNet: UNet,
        config.EfficientUNet: EfficientUNet,
        config.DeepFloydUNet: DeepFloydUNet,
    }
    return kinds[type(options)](options)


def condition(
    module: Network,
    params: Params,
    captions: tuple[Any, Any, Any],
    *,
    low_res: Any = None,
    aug_logsnr: Any = None,
    guidance_weight: Any = None,
) -> Conditioning:
    """Encode captions for the network and attach the low-resolution image: once per prompt.

    Training, sampling, export and the studies condition a network here and nowhere else.
    Shapes: captions are text (b, n, d), text_mask (b, n) and has_text (b,), false where the null
    caption stands in; low_res (b, h, w, c), upsampled and noised, and its aug_logsnr (b,), both
    None for a base stage; guidance_weight (b,) of a distilled stage that has that input.
    """
    cond = module.apply({"params": params}, *captions, method="encode_text")
    return dataclasses.replace(
        cond, low_res=low_res, aug_logsnr=aug_logsnr, guidance_weight=guidance_weight
    )


def predictor(module: Network, params: Params, cond: Conditioned, **options: Any) -> Predict:
    """Bind the network to its conditioning: `(z, logsnr) -> its output`.

    `options` are those of the network's call, such as `train` and `rngs`.
    """

    def network(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        return module.apply({"params": params}, z, logsnr, cond, **options)

    return network


def init(
    module: Module,
    key: RandomKey,
    *,
    stage: config.Stage,
    text_width: int,
    text_length: int,
) -> Params:
    """Initialise float32 parameters; pure, so that `jax.eval_shape` and `jax.jit` apply.

    No parameter depends on the size of the images or on `text_length`.
    """
    size = stage.train_side
    text = jnp.zeros((1, text_length, text_width))
    text_mask = jnp.ones((1, text_length), jnp.bool_)
    image = jnp.zeros((1, size, size, CHANNELS))
    logsnr = jnp.zeros((1,))

    def run(network: Module) -> jax.Array:
        cond = network.encode_text(text, text_mask, jnp.ones((1,), jnp.bool_))
        if stage.is_super_resolution:
            cond = dataclasses.replace(cond, low_res=image, aug_logsnr=logsnr)
        if stage.has_guidance_input:
            cond = dataclasses.replace(cond, guidance_weight=jnp.ones((1,)))
        return network(image, logsnr, cond)

    return module.init(key, method=run)["params"]


def without_guidance_input(params: Params) -> Params:
    """Leave out the parameters that a distilled network has for the guidance weight."""
    embedding = {name: x for name, x in params["emb"].items() if name != GUIDANCE}
    return {**params, "emb": embedding}


def parameter_shapes(stage: config.Stage, text: config.Text) -> Params:
    """Return the shapes and dtypes of a stage's parameters; nothing is computed."""
    shapes = _trace_shapes(stage, text.width, text.max_length)
    return jax.tree.map(lambda x: x, shapes)  # dicts of the caller's own


@functools.lru_cache(maxsize=16)  # tracing a network takes a second
def _trace_shapes(stage: config.Stage, text_width: int, text_length: int) -> Params:
    module = build(stage.model)
    return jax.eval_shape(
        lambda key: init(module, key, stage=stage, text_width=text_width, text_length=text_length),
        jax.random.key(0),
    )


def sampling_dtype(options: Options, name: str, shape: tuple[int, ...]) -> config.Dtype:
    """The dtype that a parameter may be kept in where nothing is trained: that of its products.

    Vectors stay float32, and so do all parameters of networks other than DeepFloyd IF's. `name` is
    a path, "down_0/res_1/conv_0/kernel".
    """
    is_exact = len(shape) < 2 or name.startswith(EXACT_PARTS)
    return "float32" if is_exact or not isinstance(options, config.DeepFloydUNet) else options.dtype


def sampling_shapes(stage: config.Stage, text: config.Text) -> Params:
    """Return shapes and dtypes of a stage's parameters as sampling keeps them."""
    flat = traverse_util.flatten_dict(parameter_shapes(stage, text), sep="/")
    kept = {
        name: jax.ShapeDtypeStruct(x.shape, sampling_dtype(stage.model, name, x.shape))
        for name, x in flat.items()
    }
    return traverse_util.unflatten_dict(kept, sep="/")


def count_parameters(params: Params) -> int:
    """Count parameters; shapes may stand in for arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
