"""The cascade as a fold over stages (section 2.4)."""

import functools
import warnings
from collections.abc import Sequence

import numpy as np

from imagen_jax import config, discrete_schedule
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.sample import request as sizes
from imagen_jax.sample import stage
from imagen_jax.sample.progress import NO_CALLBACKS, SamplingCallbacks
from imagen_jax.sample.request import PLAIN, Request
from imagen_jax.sample.sampler_inputs import SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage

LATEST_START = 950  # of discrete time steps: the least at which pure noise is a start


def generate(
    stages: Sequence[TrainedStage],
    prompts: SamplerInputs,
    *,
    seed: int,
    batch_size: int,
    request: Request = PLAIN,
    callbacks: SamplingCallbacks = NO_CALLBACKS,
) -> dict[str, np.ndarray]:
    """Images of every prompt from every stage: {stage name: (p, h, w, 3) float32 in [-1, 1]}.

    Image i depends on the seed, its index and its prompt alone; batches are filled up with images
    that are thrown away, so that one compiled program serves all. `callbacks` gets each batch, and
    is asked whether it has it.
    Errors: as `check_request` and `stage.check_memory`; nonfinite_images.NotFinite.
    """
    configs = [trained.stage for trained in stages]
    check_request(configs, request, len(prompts.indices))
    seed = config.check_value(seed, config.Seed, "seed")
    first = request.first_size(configs)
    request, low_res = _pad_low_res(request, configs)
    padded = request.first_size(configs)
    images: dict[str, np.ndarray] = {}
    sized = list(zip(stages, sizes.sizes_of_stages(configs, padded), strict=True))
    for trained, size in sized:
        stage.check_memory(trained, prompts, size, batch_size=batch_size)
    sample = functools.partial(stage.sample_batches, batch_size=batch_size, callbacks=callbacks)
    for trained, size in sized:
        sampler_params = _sampler_params(trained.stage, request, seed)
        inputs = stage_inputs(trained.stage, prompts, request, low_res, size=size)
        try:
            low_res = sampled = sample(trained, inputs, sampler_params, size=size)
        finally:
            trained.release()
        scale = size[0] // padded[0]
        images[trained.stage.name] = sampled[:, : first[0] * scale, : first[1] * scale]
    return images


def _pad_low_res(
    request: Request, stages: Sequence[config.Stage]
) -> tuple[Request, np.ndarray | sizes.LazyRows | None]:
    """The request padded to what the networks need, and its images to enlarge, if any."""
    if request.low_res is None:
        return request, None
    request = request.pad_for(stages)
    assert request.low_res is not None
    return request, sizes.float_rows(request.low_res)


def _sampler_params(stage: config.Stage, request: Request, seed: int) -> SamplerParams:
    return SamplerParams.from_config(
        stage.sampler, seed=seed, strength=request.strength, num_resamples=request.num_resamples
    )


def stage_inputs(
    stage: config.Stage,
    prompts: SamplerInputs,
    request: Request,
    low_res: np.ndarray | sizes.LazyRows | None,
    *,
    size: tuple[int, int],
) -> SamplerInputs:
    """The prompts with the images that one stage starts from, at its `size`, (height, width).

    `low_res` are the images of the stage before it, (p, h, w, 3) in [-1, 1]; None of a base.
    """
    count, level = len(prompts.indices), stage.noise_conditioning.sample_level
    init_image, known_mask = request.images_of_size(size)
    return prompts._replace(
        indices=np.asarray(prompts.indices, np.int32),
        negatives=prompts.negatives or prompts.captions.without_text(),
        aug_level=np.full(count, level, np.float32),
        low_res=low_res,
        init_image=init_image,
        known_mask=known_mask,
    )


def check_request(stages: Sequence[config.Stage], request: Request, prompts: int) -> None:
    """Refuse a request that stages can't meet for so many prompts.

    Errors: ValueError for a first stage that needs a low-resolution image and gets none, or gets
    one that it has no use for, for negative prompts that nothing reads, and as
    `Request.check_count`, `Request.first_size` and `request.sizes_of_stages`.
    """
    _check_low_res(stages[0], request)
    request.check_count(prompts)
    if request.has_negative_prompt and not any(stage.is_guided for stage in stages):
        raise ValueError(
            "negative prompts would change nothing: guidance_weight is 1, which is off, or the "
            f"network is distilled, in {', '.join(stage.name for stage in stages)}"
        )
    first = request.first_size(stages)
    if request.low_res is None:
        sizes.sizes_of_stages(stages, first)


def warn_of_late_start(stages: Sequence[config.Stage], request: Request) -> None:
    """Warn of stages whose first time step expects more of the image than pure noise has of it."""
    if request.init_image is not None:
        return
    for one in stages:
        time, betas = one.sampler.first_time_step, one.diffusion.betas
        if time is None or betas is None or time >= LATEST_START:
            continue
        signal = 1 / np.sqrt(1 + np.exp(-discrete_schedule.levels(betas)[time]))
        warnings.warn(
            f"{one.name} begins with pure noise at time step {time}, where its network expects "
            f"{signal:.0%} of the image: contrast and layout may suffer; give steps or timesteps "
            f"that begin at {LATEST_START} or more, such as timesteps smart100",
            stacklevel=4,
        )


def _check_low_res(first: config.Stage, request: Request) -> None:
    if first.is_super_resolution and request.low_res is None:
        raise ValueError(
            f"the cascade starts with {first.name}, which enlarges {first.low_size}-px images: "
            "give low_res, or add the stage that samples them"
        )
    if not first.is_super_resolution and request.low_res is not None:
        raise ValueError(
            f"low_res needs a super-resolution stage to start with, and {first.name} is none: name "
            "one in first_stage"
        )
