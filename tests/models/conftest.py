"""The three networks of a cascade at toy size, each initialised and compiled once."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config, models

SIDE, TOKENS, TEXT_WIDTH = 8, 6, 24

BASE = config.UNet(
    channels=8,
    channel_mult=(1, 2),
    res_blocks=1,
    attention_at=(4,),
    head_channels=8,
    norm_groups=4,
)
SR256 = config.EfficientUNet(
    stem_channels=8,
    levels=(
        config.Level(channels=8, blocks=1),
        config.Level(channels=16, blocks=1, self_attention=True, text_attention=True),
    ),
    cond_channels=16,
    heads=2,
    pool_head_channels=8,
    norm_groups=4,
)
SR1024 = dataclasses.replace(
    SR256,
    levels=(SR256.levels[0], config.Level(channels=16, blocks=1, text_attention=True)),
    text=config.TextConditioning(kv="cross"),
)
OPTIONS = {"base": BASE, "sr256": SR256, "sr1024": SR1024}
DEEPFLOYD = config.DeepFloydUNet(
    levels=(
        config.DeepFloydLevel(channels=8, res_blocks=1),
        config.DeepFloydLevel(
            channels=16, res_blocks=2, attention="image_and_text", head_channels=8
        ),
    ),
    text_channels=32,
    cond_channels=16,
    middle_head_channels=8,
    pool_heads=3,
    norm_groups=4,
)
# DeepFloyd IF's, which read every row of the text, there or not.
ALL_OPTIONS = OPTIONS | {
    "deepfloyd_1": DEEPFLOYD,
    "deepfloyd_2": dataclasses.replace(
        DEEPFLOYD,
        reads_low_res=True,
        emb_activation="gelu",
        activate_emb_in_blocks=False,
        residual_divisor=1.4142271248762552,
        middle_residual_divisor=1.4142271248762552,
    ),
}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A batch of three: the second caption is short, the third absent."""

    z: Any
    logsnr: Any
    text: Any
    text_mask: Any
    has_text: Any
    low_res: Any
    aug_logsnr: Any


@dataclasses.dataclass(frozen=True)
class Family:
    stage: config.Stage
    module: Any
    params: Any  # no array is zero, so that nothing hides behind a zero initialisation
    encode: Callable[..., Any]
    predict: Callable[..., Any]

    def run(self, inputs: Inputs) -> np.ndarray:
        cond = self.encode(self.params, inputs)
        return np.asarray(self.predict(self.params, cond, inputs))


jax.tree_util.register_dataclass(Inputs, [f.name for f in dataclasses.fields(Inputs)], [])


def reads_low_res(model: Any) -> bool:
    if isinstance(model, config.DeepFloydUNet):
        return model.reads_low_res
    return isinstance(model, config.EfficientUNet)


def stage_of(model: Any) -> config.Stage:
    low = SIDE // 2 if reads_low_res(model) else None
    return config.Stage(name="toy", size=SIDE, low_size=low, model=model)


def make_inputs(height: int = SIDE, width: int = SIDE) -> Inputs:
    draw = np.random.default_rng(0)
    images = draw.standard_normal((2, 3, height, width, 3)).astype(np.float32)
    return Inputs(
        z=jnp.asarray(images[0]),
        logsnr=jnp.asarray([-3.0, 0.5, 4.0], jnp.float32),
        text=jnp.asarray(draw.standard_normal((3, TOKENS, TEXT_WIDTH)), jnp.float32),
        text_mask=jnp.asarray(np.arange(TOKENS)[None] < np.array([[5], [2], [4]])),
        has_text=jnp.asarray([True, True, False]),
        low_res=jnp.asarray(images[1]),
        aug_logsnr=jnp.asarray([2.0, 1.0, -1.0], jnp.float32),
    )


def encode(module: Any, params: Any, inputs: Inputs) -> models.Conditioning:
    captions = (inputs.text, inputs.text_mask, inputs.has_text)
    low = {"low_res": inputs.low_res, "aug_logsnr": inputs.aug_logsnr}
    wanted = low if reads_low_res(module.options) else {}
    return models.condition(module, params, captions, **wanted)


def predict(module: Any, params: Any, cond: models.Conditioning, inputs: Inputs) -> Any:
    return module.apply({"params": params}, inputs.z, inputs.logsnr, cond)


def shapes_of(module: Any, stage: config.Stage) -> Any:
    init = functools.partial(
        models.init, module, stage=stage, text_width=TEXT_WIDTH, text_length=TOKENS
    )
    return jax.eval_shape(init, jax.random.key(0))


def random_params(shapes: Any) -> Any:
    """Kernels of unit gain, norm scales near one, everything else small: all of it non-zero."""
    draw = np.random.default_rng(1)

    def leaf(path: Any, shape: Any) -> Any:
        values = draw.standard_normal(shape.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return jnp.asarray(values / np.sqrt(np.prod(shape.shape[:-1])))
        return jnp.asarray((path[-1].key == "scale") + 0.3 * values)

    return jax.tree.map_with_path(leaf, shapes)


@functools.cache
def family(name: str) -> Family:
    stage = stage_of(ALL_OPTIONS[name])
    module = models.build(stage.model)
    return Family(
        stage=stage,
        module=module,
        params=random_params(shapes_of(module, stage)),
        encode=jax.jit(functools.partial(encode, module)),
        predict=jax.jit(functools.partial(predict, module)),
    )


# Joined keys in a U-Net and text's alone in an efficient one; with `-m slow` joined ones there.
@pytest.fixture(params=["base", pytest.param("sr256", marks=pytest.mark.slow), "sr1024"])
def net(request: pytest.FixtureRequest) -> Family:
    return family(request.param)


@pytest.fixture
def inputs() -> Inputs:
    return make_inputs()


@pytest.fixture(scope="session")
def toy() -> Any:
    """This file's names, which a test module cannot import."""
    return sys.modules[__name__]
