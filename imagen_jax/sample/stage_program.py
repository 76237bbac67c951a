"""One stage with its weights, and the program that samples a batch of its images."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from imagen_jax import config, discrete_schedule, models, rng
from imagen_jax.diffusion import (
    noise_conditioning,
    preconditioning,
    samplers,
    sampling_loop,
    schedules,
)
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.diffusion.sampling_loop import Beginning, SamplerState
from imagen_jax.diffusion.spacing import logsnr_at
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.sample import denoiser
from imagen_jax.sample.lazy_params import LazyParams
from imagen_jax.sample.noise_prediction import (
    Guidance,
    LowRes,
    Predicted,
    find_logsnr,
    guide,
    network_inputs,
    to_eps,
)
from imagen_jax.sample.sampler_inputs import SamplerInputs
from imagen_jax.types import Conditioned, Image, Keys, Network, Params, RandomKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedStage:
    """One trained stage: its config, network and (averaged) parameters, or where they are.

    `step_rule` takes the place of the one that `stage.sampler.kind` names.
    """

    stage: config.Stage
    module: Network
    params: Params | LazyParams = dataclasses.field(repr=False)
    step_rule: samplers.StepRule | None = None

    def device_params(self, sharding: NamedSharding | None = None) -> Params:
        """The parameters on the devices: by default whole on each. Errors: those of reading."""
        sharding = sharding or mesh.replicated_sharding(mesh.build(auto_layout.choose_axes()))
        if isinstance(self.params, LazyParams):
            return self.params.get(sharding)
        return jax.device_put(self.params, sharding)

    def in_dtype(self, dtype: config.Dtype | None) -> "TrainedStage":
        """The same with a network that computes in this dtype; None for the one that it has."""
        if dtype is None:
            return self
        model = dataclasses.replace(self.stage.model, dtype=dtype)
        stage = dataclasses.replace(self.stage, model=model)
        return dataclasses.replace(self, stage=stage, module=models.build(model))

    def release(self) -> None:
        """Free parameters that are read for each use."""
        if isinstance(self.params, LazyParams):
            self.params.release()

    def predict(
        self,
        params: Params,
        z: Image,
        t: Any,
        text: Any,
        *,
        guidance: Guidance | None = None,
        low_res: LowRes | None = None,
    ) -> Predicted:
        """Predict the noise in z: a pure function of arrays, to differentiate, jit or vmap.

        Nothing is thresholded. `params` are those of `device_params()`. `text` is `EncodedText`,
        such as `Imagen.encode(prompts).captions`, or an array of T5's states whose every row
        counts, padding too, as DeepFloyd IF has it. With `guidance` both texts are one batch, and
        the variance is that of `text`.

        Shapes: z (b, h, w, 3); t a scalar or (b,); text (b, n, d).
        Units: z is alpha * x0 + sigma * eps of x0 in [-1, 1], as `add_noise` makes it; t is the
        time step, 0 (clean) to 999, of networks that count them, and else the time in [0, 1].
        Errors: ValueError for a low-resolution image that is not there, or not wanted, and for a
        distilled stage that takes the guidance weight.
        """
        inputs = network_inputs(self.stage, z, t, text, low_res)
        if guidance is not None:
            inputs = inputs.with_negative(guidance.negative)
        low, diffusion = inputs.low_res, self.stage.diffusion
        cond = models.condition(
            self.module, params, inputs.captions, low_res=low, aug_logsnr=inputs.aug_logsnr
        )
        network = models.predictor(self.module, params, cond)
        predict = preconditioning.precondition(network, low, diffusion=diffusion)
        eps, rest = to_eps(predict, inputs.z, inputs.logsnr, diffusion=diffusion)
        if guidance is not None:
            eps, rest = guide(eps, guidance.weight), rest[: z.shape[0]]
        return Predicted(eps, rest if diffusion.variance == "learned_range" else None)

    def add_noise(self, x0: Image, eps: Image, t: Any) -> Image:
        """Return z at t: alpha * x0 + sigma * eps. Shapes and units: as `predict`."""
        logsnr = find_logsnr(t, x0.shape[0], schedule=self.stage.diffusion.schedule)
        return schedules.add_noise(x0, eps, logsnr)

    def program(self) -> "TrainedStage":
        """The static argument that `sample_stage` is compiled for.

        It has no parameters, and none of the numbers that are arguments: one program serves all.

        Guidance of weight 1 stays 1: the unconditional pass is left out of that program. A
        distilled stage keeps what it is distilled for.
        """
        sampler, default = self.stage.sampler, config.Sampler()
        constant = {name: getattr(default, name) for name in samplers.TRACED}
        if self.stage.distillation is not None:
            constant |= self.stage.distillation.sampler_numbers()
        elif sampler.guidance_weight == 1.0:
            constant["guidance_weight"] = 1.0
        if sampler.timesteps:
            constant["steps"] = sampler.steps  # which are a part of the program
        interval = None if sampler.guidance_interval is None else (0.0, 1.0)
        noise = dataclasses.replace(self.stage.noise_conditioning, sample_level=0.0)
        stage = dataclasses.replace(
            self.stage,
            sampler=dataclasses.replace(sampler, guidance_interval=interval, **constant),
            noise_conditioning=noise,
        )
        return dataclasses.replace(self, stage=stage, params=None)


@functools.partial(jax.jit, static_argnames=("program", "size"), donate_argnames=("state",))
def sample_stage(
    params: Params,
    inputs: SamplerInputs,
    state: SamplerState | None,
    sampler_params: SamplerParams,
    *,
    program: TrainedStage,
    size: tuple[int, int],
) -> SamplerState:
    """Steps `first` to `last` of one stage: one program, one loop over the steps.

    Without a state it starts there. The low-resolution input is noised before the loop, alike
    whichever steps are made. Images, of `size` (height, width), are the `x0` of the last state, a
    little outside [-1, 1] where nothing thresholds them.
    """
    stage, sampler = program.stage, program.stage.sampler
    cond, uncond = _condition(params, inputs, sampler_params, program=program)
    denoise = denoiser.build(
        params, cond, uncond, sampler_params, module=program.module, stage=stage
    )
    if state is None:
        state = _begin(inputs, sampler_params, stage=stage, size=size)
    known = None
    if (mask := inputs.known_mask) is not None:
        noised = sampler.known_pixels == "noised"
        known = sampling_loop.KnownPixels(inputs.init_image, mask, noised)
    rule = program.step_rule or samplers.RULES[sampler.kind]
    steps = sampling_loop.Steps(rule, _levels(stage), _cleanest(stage))
    return sampling_loop.sample(denoise, state, sampler_params, steps=steps, known=known)


def _condition(
    params: Params, inputs: SamplerInputs, sampler_params: SamplerParams, *, program: TrainedStage
) -> tuple[Conditioned, Conditioned | None]:
    """Conditioning on the prompts, and where guidance has two passes on the negative ones."""
    stage = program.stage
    low_res = aug_logsnr = guidance_weight = None
    if inputs.low_res is not None:
        low_res, aug_logsnr = noise_conditioning.prepare(
            inputs.low_res,
            inputs.aug_level,
            rng.fold_keys(_keys(stage, inputs, sampler_params), "aug_noise"),
            factor=stage.factor,
            options=stage.noise_conditioning,
        )
    if stage.has_guidance_input:
        guidance_weight = jnp.broadcast_to(sampler_params.guidance_weight, inputs.indices.shape)
    condition = functools.partial(
        models.condition,
        program.module,
        params,
        low_res=low_res,
        aug_logsnr=aug_logsnr,
        guidance_weight=guidance_weight,
    )
    cond = condition(inputs.captions)
    if not stage.is_guided:
        return cond, None
    assert inputs.negatives is not None  # `SamplerInputs` have them wherever guidance is
    return cond, condition(inputs.negatives)


@functools.partial(jax.jit, static_argnames=("program", "size"))
def begin_stage(
    inputs: SamplerInputs,
    sampler_params: SamplerParams,
    *,
    program: TrainedStage,
    size: tuple[int, int],
) -> SamplerState:
    """The state before step `first`, with which `sample_stage` makes the same steps as without one.

    Its program is small; the one of the steps is then the same from noise and from images.
    """
    return _begin(inputs, sampler_params, stage=program.stage, size=size)


def _begin(
    inputs: SamplerInputs,
    sampler_params: SamplerParams,
    *,
    stage: config.Stage,
    size: tuple[int, int],
) -> SamplerState:
    blank = jnp.zeros((inputs.indices.shape[0], *size, 3))
    image = blank if inputs.init_image is None else inputs.init_image
    return sampling_loop.init_state(
        rng.fold_keys(_keys(stage, inputs, sampler_params), "sampler"),
        sampler_params,
        image,
        levels=_levels(stage),
        beginning=_beginning(stage.sampler, inputs),
    )


def _keys(stage: config.Stage, inputs: SamplerInputs, sampler_params: SamplerParams) -> Keys:
    seed = sampler_params.seed if inputs.seeds is None else inputs.seeds
    return image_keys(stage, seed, inputs.indices)


def _levels(stage: config.Stage) -> sampling_loop.Levels:
    return functools.partial(logsnr_at, sampler=stage.sampler, diffusion=stage.diffusion)


def _beginning(sampler: config.Sampler, inputs: SamplerInputs) -> Beginning:
    """What the first step of all begins with; of time steps it is what diffusers has."""
    if not sampler.is_discrete:
        return "noise"
    return "unit_noise" if inputs.init_image is None else "image"


def _cleanest(stage: config.Stage) -> float:
    """Return the level from which on the last step returns its x0: all, or time step 0's alone."""
    betas, sampler = stage.diffusion.betas, stage.sampler
    if betas is None or not (sampler.final_noise and sampler.ends_noisy):
        return -np.inf
    return float(discrete_schedule.levels(betas)[0])


def clip_x0(state: SamplerState) -> Image:
    """The finished images, in [-1, 1]."""
    return jnp.clip(state.x0, -1.0, 1.0)


def image_keys(
    stage: config.Stage, seed: int | jax.Array | np.ndarray | np.integer, indices: Any
) -> Keys:
    """A key for each image of a stage, of the seed and its index alone; (b,) as indices.

    Shapes: seed a scalar, or (b,): one for each image.
    """
    if not np.ndim(seed):
        return rng.fold_each(rng.fold(rng.root(seed), stage.name), "image", indices)

    def one(own: jax.Array, index: jax.Array) -> RandomKey:
        return rng.fold(rng.fold(rng.root(own), stage.name), "image", index)

    return jax.vmap(one)(jnp.asarray(seed), jnp.asarray(indices))
