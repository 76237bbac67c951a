"""A hook of training that samples now and then, always from the same prompts.

A base stage samples the config's prompts. A super-resolution stage enlarges records of its dataset:
each image shows its input, what the stage makes of it, and the real one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from imagen_jax import config
from imagen_jax.data.store.store import Store

SHOWN = 4  # records that a super-resolution stage enlarges


def hook(experiment: config.Experiment, store: Store) -> Callable[[int, Any, Any], None]:
    """`sample(step, state, progress)`, which samples every `train.sample_every` steps.

    Images that are not finite are reported instead of shown.
    """
    from imagen_jax import models
    from imagen_jax.image import to_uint8
    from imagen_jax.sample import cascade
    from imagen_jax.sample.nonfinite_images import NotFinite
    from imagen_jax.sample.request import Request
    from imagen_jax.sample.stage_program import TrainedStage

    stage, module = experiment.stage, models.build(experiment.stage.model)
    if stage.is_super_resolution:
        prompts, low, real = _records(experiment, store)
    else:
        prompts, low, real = _prompts(experiment), None, None

    def sample(step: int, state: Any, progress: Any) -> None:
        if step % experiment.train.sample_every:
            return
        params = state.network_params(experiment.lora)
        try:
            sampled = cascade.generate(
                [TrainedStage(stage=stage, module=module, params=params)],
                prompts,
                seed=0,
                batch_size=len(prompts.indices),
                request=Request(low_res=low),
            )[stage.name]
        except NotFinite as error:
            progress.info(f"nothing to show at step {step}: {error}")
            return
        shown = np.asarray(to_uint8(sampled))
        if low is not None:
            enlarged = low.repeat(stage.factor, axis=1).repeat(stage.factor, axis=2)
            shown = np.concatenate([enlarged, shown, real], axis=2)
        progress.images(step, shown)

    return sample


def _prompts(experiment: config.Experiment) -> Any:
    from imagen_jax import imagen
    from imagen_jax.text.encoder import TextEncoder

    encoder = TextEncoder.from_config(experiment.text)
    return imagen.Imagen((), encoder).encode(experiment.train.sample_prompts)


def _records(experiment: config.Experiment, store: Store) -> tuple[Any, np.ndarray, np.ndarray]:
    """Captions of the first records of the run's order, their small images and their real ones.

    Corrupt records have others in their place, as in training.
    """
    from imagen_jax.data import pipeline
    from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs

    count = min(SHOWN, store.count)
    loaded = next(
        pipeline.example_stream(
            store,
            stage=experiment.stage,
            data=dataclasses.replace(experiment.data, workers=0, threads=1, prefetch=1),
            share=pipeline.ProcessRows.whole(count),
            seed=experiment.train.seed,
        )
    )
    batch = loaded.batch
    prompts = SamplerInputs(
        captions=EncodedText(batch.text, batch.text_mask, np.ones(count, bool)),
        indices=np.arange(count, dtype=np.int32),
    )
    return prompts, batch.low_pixels, batch.pixels
