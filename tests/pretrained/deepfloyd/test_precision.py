"""DeepFloyd IF in bfloat16: what is kept and computed in it, what is not, and what that costs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deepfloyd_references import FOLDER, read_reference, relative_error
from flax import traverse_util

import imagen_jax
from imagen_jax import config, discrete_schedule, models
from imagen_jax.sample.stage_program import TrainedStage

SECOND = FOLDER / "if_II"
DEVIATION = 0.03  # of the network's output, by its largest value


@functools.cache
def stage(dtype: Any) -> TrainedStage:
    return imagen_jax.load(SECOND, dtype=dtype, compile_cache=False).stages[0]


def predict(dtype: Any, params: Any) -> Any:
    """What stage II predicts for the references' inputs."""
    trained, given = stage(dtype), read_reference("unet_II")
    levels = functools.partial(discrete_schedule.logsnr_of, kind="cosine")
    z, low_res = np.split(given["sample"], 2, axis=-1)
    text = jnp.asarray(given["encoder_hidden_states"])
    mask, has_text = jnp.ones(text.shape[:2], jnp.bool_), jnp.ones(len(text), jnp.bool_)

    @jax.jit
    def run(params: Any) -> jax.Array:
        cond = models.condition(
            trained.module,
            params,
            (text, mask, has_text),
            low_res=jnp.asarray(low_res),
            aug_logsnr=levels(jnp.asarray(given["class_labels"], jnp.float32)),
        )
        logsnr = levels(jnp.asarray(given["timestep"], jnp.float32))
        return models.predictor(trained.module, params, cond)(jnp.asarray(z), logsnr)

    return run(params)


@pytest.mark.slow
def test_bfloat16_deviates_by_a_stated_bound_and_keeps_matrices_in_half_the_memory() -> None:
    wanted, trained = read_reference("unet_II")["out"], stage("bfloat16")
    params = trained.device_params()
    found = predict("bfloat16", params)
    assert found.dtype == jnp.float32
    assert 1e-4 < relative_error(found, wanted) < DEVIATION
    flat = traverse_util.flatten_dict(params, sep="/")
    rounded = {name for name, x in flat.items() if x.dtype == jnp.bfloat16}
    exact = [name for name in flat if name not in rounded and flat[name].ndim > 1]
    assert {name.partition("/")[0] for name in exact} == {"emb", "head", "text"}
    assert not [name for name in rounded if flat[name].ndim == 1]
    assert "text/mid_attn_0/key/kernel" in rounded
    assert "text/projection/kernel" in exact
    shapes = models.sampling_shapes(trained.stage, config_text(flat))
    assert jax.tree.map(lambda x: x.dtype, params) == jax.tree.map(lambda x: x.dtype, shapes)
    # Matrices kept in bfloat16 compute what float32 ones of the same numbers do, bit for bit.
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    np.testing.assert_array_equal(predict("bfloat16", wide), found)


def config_text(flat: Any) -> config.Text:
    return config.Text(width=flat["text/projection/kernel"].shape[0], padding="encoded")


def test_float32_stays_float32() -> None:
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(stage(None).device_params()))
