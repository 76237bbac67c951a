"""The cascade as a fold over stages (section 2.4)."""

from collections.abc import Sequence

import numpy as np

from imagen_jax import config
from imagen_jax.image import to_float
from imagen_jax.sample import sides, stage
from imagen_jax.sample.progress import NO_CALLBACKS, SamplingCallbacks
from imagen_jax.sample.request import PLAIN, Request
from imagen_jax.sample.stage import StageJob
from imagen_jax.sample.stage_program import EncodedPrompts, TrainedStage


def generate(
    painters: Sequence[TrainedStage],
    prompts: EncodedPrompts,
    *,
    seed: int,
    batch_size: int,
    request: Request = PLAIN,
    following: SamplingCallbacks = NO_CALLBACKS,
) -> dict[str, np.ndarray]:
    """Paint every prompt through every stage: {stage name: (p, h, w, 3) float32 in [-1, 1]}.

    Picture i depends on the seed, its index and its prompt alone; batches are filled up with
    throw-away pictures, so that one compiled program serves all. `following` is told of each batch,
    and asked whether it has it.
    Errors: as `check` and `stage.check_memory`; finite.NotFinite.
    """
    stages = [painter.stage for painter in painters]
    check_request(stages, request, len(prompts.indices))
    first = request.first_sides(stages)
    low_res = None
    if request.low_res is not None:
        wide = sides.pad_low_res(request.low_res, stages)
        low_res = np.asarray(to_float(wide))
        height, width = (side * stages[0].factor for side in wide.shape[1:3])
    else:
        height, width = first
    pictures: dict[str, np.ndarray] = {}
    all_sides = sides.sizes_of_stages(stages, (height, width))
    for painter, painted in zip(painters, all_sides, strict=True):
        stage.check_memory(painter, prompts, painted, batch_size=batch_size)
    for painter, painted in zip(painters, all_sides, strict=True):
        job = StageJob(
            painter=painter,
            prompts=prompts,
            sides=painted,
            low_res=low_res,
            seed=seed,
            request=request,
        )
        try:
            low_res = stage.sample_batches(job, batch_size=batch_size, following=following)
        finally:
            painter.done()
        scale = painted[0] // height
        pictures[painter.stage.name] = low_res[:, : first[0] * scale, : first[1] * scale]
    return pictures


def check_request(stages: Sequence[config.Stage], request: Request, prompts: int) -> None:
    """Refuse a request that stages can't meet for so many prompts.

    Errors: ValueError for a first stage that needs a low-resolution picture and gets none, or gets
    one that it has no use for, for negatives that nothing reads, and as `Request.check_count`,
    `Request.first_sides` and `sides.of_stages`.
    """
    _check_low_res(stages[0], request)
    request.check_count(prompts)
    weights = {stage.name: stage.sampler.guidance_weight for stage in stages}
    if request.has_negative and set(weights.values()) == {1.0}:
        raise ValueError(
            "negative prompts would change nothing: guidance_weight is 1, which is off, in "
            f"{', '.join(weights)}"
        )
    first = request.first_sides(stages)
    if request.low_res is None:
        sides.sizes_of_stages(stages, first)


def _check_low_res(first: config.Stage, request: Request) -> None:
    if first.is_super_resolution and request.low_res is None:
        raise ValueError(
            f"the cascade starts with {first.name}, which enlarges {first.low_size}-px pictures: "
            "give low_res, or add the stage that paints them"
        )
    if not first.is_super_resolution and request.low_res is not None:
        raise ValueError(
            f"low_res is enlarged by a super-resolution stage, and {first.name} is none: say with "
            "`start` where to begin"
        )
