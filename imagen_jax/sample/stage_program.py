"""One stage: what a batch of its pictures is painted from, and the program that does it."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from imagen_jax import config, models, rng
from imagen_jax.diffusion import noise_conditioning, samplers
from imagen_jax.diffusion.dials import SamplerParams
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.sample import denoiser
from imagen_jax.sample.stored import LazyParams
from imagen_jax.types import Image, Keys, Network, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedStage:
    """One trained stage: its config, network and (averaged) parameters, or where they are."""

    stage: config.Stage
    module: Network
    params: Params | LazyParams

    def placed(self, sharding: NamedSharding | None = None) -> Params:
        """The parameters on the devices: by default whole on each. Errors: those of reading."""
        sharding = sharding or mesh.replicated_sharding(mesh.build(auto_layout.choose_axes()))
        if isinstance(self.params, LazyParams):
            return self.params.on(sharding)
        return jax.device_put(self.params, sharding)

    def done(self) -> None:
        """Free parameters that are read for each use."""
        if isinstance(self.params, LazyParams):
            self.params.done()


class EncodedText(NamedTuple):
    """Encoded captions, numpy or jax: text (b, n, d), text_mask (b, n), has_text (b,).

    `has_text` is false for an empty one.
    """

    text: Any
    text_mask: Any
    has_text: Any

    def nulled(self) -> "EncodedText":
        """As many empty ones."""
        return self._replace(has_text=np.zeros(self.has_text.shape, np.bool_))


class SamplerInputs(NamedTuple):
    """What one batch of pictures is painted from; every array, numpy or jax, is batch-first.

    Shapes: keys (b,); aug_level (b,); low_res (b, h, w, 3) in [-1, 1] at the previous stage's
    sides, None for a base; picture (b, h, w, 3) in [-1, 1] to begin from, None for pure noise.
    """

    captions: EncodedText
    negatives: EncodedText  # what guidance leads away from
    keys: Keys
    aug_level: Any
    low_res: Any
    picture: Any = None
    known: samplers.KnownPixels | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageProgram:
    """What `paint` is compiled for; all else is an array."""

    module: Network
    stage: config.Stage
    guided: bool  # without, the unconditional pass is left out
    sides: tuple[int, int]  # height, width

    @classmethod
    def of(cls, painter: TrainedStage, sides: tuple[int, int]) -> "StageProgram":
        """One program serves all numbers that are in `Dials` or on the canvas."""
        stage, plain = painter.stage, config.Sampler()
        sampler = dataclasses.replace(
            stage.sampler,
            guidance_interval=None if stage.sampler.guidance_interval is None else (0.0, 1.0),
            **{name: getattr(plain, name) for name in _TURNED},
        )
        noise = dataclasses.replace(stage.noise_conditioning, sample_level=0.0)
        return cls(
            module=painter.module,
            stage=dataclasses.replace(stage, sampler=sampler, noise_conditioning=noise),
            guided=stage.sampler.guidance_weight != 1.0,
            sides=sides,
        )


_TURNED = ("steps", "stochasticity", "guidance_weight", "guidance_rescale")


@functools.partial(jax.jit, static_argnames=("program",), donate_argnames=("state",))
def sample_stage(
    params: Params,
    canvas: SamplerInputs,
    state: samplers.SamplerState | None,
    dials: SamplerParams,
    *,
    program: StageProgram,
) -> samplers.SamplerState:
    """Steps `dials.first` to `dials.last` of one stage: one program, one loop over the steps.

    Without a state it begins there. The low-resolution input is noised before the loop, alike
    whichever steps are made. Pictures are the `x0` of the last state, a little outside [-1, 1]
    where nothing thresholds them.
    """
    stage, sides = program.stage, program.sides
    low_res = aug_logsnr = None
    if canvas.low_res is not None:
        low_res, aug_logsnr = noise_conditioning.prepare(
            canvas.low_res,
            canvas.aug_level,
            rng.fold_keys(canvas.keys, "aug_noise"),
            factor=stage.factor,
            options=stage.noise_conditioning,
        )
    condition = functools.partial(
        models.condition, program.module, params, low_res=low_res, aug_logsnr=aug_logsnr
    )
    cond = condition(canvas.captions)
    uncond = condition(canvas.negatives) if program.guided else None
    denoise = denoiser.build(params, cond, uncond, dials, module=program.module, stage=stage)
    options = {"sampler": stage.sampler, "diffusion": stage.diffusion}
    if state is None:
        blank = jnp.zeros((canvas.aug_level.shape[0], *sides, 3))
        picture = blank if canvas.picture is None else canvas.picture
        state = samplers.init_state(
            rng.fold_keys(canvas.keys, "sampler"), dials, picture, **options
        )
    return samplers.sample(denoise, state, dials, known=canvas.known, **options)


def unscale_x0(state: samplers.SamplerState) -> Image:
    """The finished pictures, in [-1, 1]."""
    return jnp.clip(state.x0, -1.0, 1.0)


def image_keys(stage: config.Stage, seed: int | jax.Array, indices: Any) -> Keys:
    """A key for each picture of a stage, of the seed and its index alone; (b,) as indices."""
    return rng.fold_each(rng.fold(rng.root(seed), stage.name), "image", indices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedPrompts:
    """Encoded prompts, in numpy; `indices` (p,) number the pictures.

    With the seed they decide the noise.
    """

    captions: EncodedText
    indices: np.ndarray
    negatives: EncodedText | None = None  # what guidance leads away from; None: empty ones

    def rows(self, chosen: np.ndarray) -> "EncodedPrompts":
        """The prompts at `chosen`."""
        return EncodedPrompts(**jax.tree.map(lambda x: x[chosen], vars(self)))
