"""What one request asks for, checked against the cascade, and the events that answer it."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from imagen_jax import config
from imagen_jax.config.ranges import Steps
from imagen_jax.data.images.decode import RGB
from imagen_jax.diffusion.samplers import SamplerParams


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageRequest:
    """Images of one prompt. Image i of them is what `imagen sample` makes at index i of the seed.

    `size` is (height, width) of the last stage's images. `steps` are those of the first stage,
    `guidance_weight` that of every stage with guidance; None: the cascade's own. `init_image`,
    uint8 (h, w, 3), and `mask`, bool (h, w), true where it is sampled again, are of that size.
    `partials` is the number of unfinished images to be sent.
    """

    prompt: str
    size: tuple[int, int]
    seed: config.Seed
    negative_prompt: str = ""
    count: config.Images = 1
    steps: Steps | None = None
    guidance_weight: config.Finite | None = None
    init_image: np.ndarray | None = None
    mask: np.ndarray | None = None
    strength: config.Share = 1.0
    partials: config.Whole = 0

    def __post_init__(self) -> None:
        config.check_fields(self, "request")

    @property
    def options(self) -> tuple[Any, ...]:
        """All that images of one batch must have in common: their programs and its numbers."""
        kind = (self.init_image is not None, self.mask is not None)
        return (self.size, self.steps, self.guidance_weight, self.strength, *kind)

    def sampler(self, stage: config.Stage, *, is_first: bool) -> config.Sampler:
        """The sampler of a stage with the request's numbers.

        Errors: ValueError, as of a config; for what a distilled stage was not trained for.
        """
        changes: dict[str, Any] = {}
        if is_first and self.steps is not None:
            changes["steps"] = self.steps
        if self.guidance_weight is not None and takes_guidance(stage):
            changes["guidance_weight"] = self.guidance_weight
        sampler = dataclasses.replace(stage.sampler, **changes)
        return dataclasses.replace(stage, sampler=sampler).sampler  # which the stage checks

    def sampler_params(self, stage: config.Stage, *, is_first: bool) -> SamplerParams:
        """The numbers of a stage's program; each image has a seed of its own."""
        sampler = self.sampler(stage, is_first=is_first)
        return SamplerParams.from_config(sampler, strength=self.strength)


def takes_guidance(stage: config.Stage) -> bool:
    """Tell whether a request's guidance weight is for this stage."""
    return stage.sampler.guidance_weight != 1.0 or stage.has_guidance_input


@dataclasses.dataclass(frozen=True)
class Finished:
    """An image is finished: uint8 (h, w, 3)."""

    index: int
    pixels: RGB


@dataclasses.dataclass(frozen=True)
class Partial:
    """An image that is not finished: the estimate of it, number `number`, at its stage's size."""

    index: int
    number: int
    share: float  # of all steps that are made
    pixels: RGB


@dataclasses.dataclass(frozen=True)
class Failed:
    """An image will never be finished, nor will the others of its request."""

    error: Exception


Event = Finished | Partial | Failed


@dataclasses.dataclass(eq=False)
class Ticket:
    """A request that the engine has taken, and where its events go: `emit`, on another thread.

    `warnings` are sentences about the prompt, complete when the first event comes.
    """

    request: ImageRequest
    client: str
    emit: Callable[[Event], None]
    warnings: tuple[str, ...] = ()
    _cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def is_cancelled(self) -> bool:
        """True when nobody waits for the images any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Say that nobody waits any more; what is computed for it ends within a step."""
        self._cancelled.set()
