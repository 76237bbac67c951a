"""Small cascades with random weights, and prompts for them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import config, models, rng
from imagen_jax.sample.stage_program import EncodedText, SamplerInputs, TrainedStage


def make_stage(name: str, *, key: int = 0, **sampler: object) -> TrainedStage:
    """A stage of a config, with another sampler."""
    experiment = config.load(name)[0]
    stage = experiment.stage
    stage = dataclasses.replace(stage, sampler=dataclasses.replace(stage.sampler, **sampler))
    module = models.build(stage.model)
    params = jax.jit(lambda k: models.init(module, k, stage=stage, text_width=64, text_length=24))(
        jax.random.key(key)
    )
    # Zero-initialised layers would hide what they should show.
    noise = jax.tree.map(
        lambda p: 0.05 * jax.random.normal(rng.fold(jax.random.key(1), str(p.shape)), p.shape),
        params,
    )
    return TrainedStage(stage=stage, module=module, params=jax.tree.map(jnp.add, params, noise))


def make_prompts(count: int, *, has_text: bool = True) -> SamplerInputs:
    """Random encodings of captions of random lengths."""
    draw = np.random.default_rng(0)
    mask = np.arange(24)[None] < draw.integers(1, 24, count)[:, None]
    text = (draw.standard_normal((count, 24, 64)) * mask[..., None]).astype(np.float32)
    captions = EncodedText(text, mask, np.full(count, has_text))
    return SamplerInputs(captions=captions, indices=np.arange(count, dtype=np.int32))
