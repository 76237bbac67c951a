"""Networks, text encoder, scheduler and pipelines against what diffusers computed.

Limits are those of the references' manifest; it lists what each common mistake costs.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deepfloyd_references import FOLDER, read_reference, relative_error

from imagen_jax import config, discrete_schedule, models, rng
from imagen_jax.diffusion import (
    noise_conditioning,
    prediction,
    samplers,
    sampling_loop,
    thresholding,
)
from imagen_jax.diffusion.spacing import logsnr_at
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.deepfloyd import load
from imagen_jax.sample import denoiser
from imagen_jax.sample.noise_prediction import LowRes
from imagen_jax.sample.stage_program import TrainedStage

MANIFEST = json.loads((FOLDER / "refs" / "manifest.json").read_text())
LIMITS = MANIFEST["tolerance"]
PIPELINES = MANIFEST["pipelines"]
CLEANEST = discrete_schedule.levels("cosine")[0]


@pytest.fixture(scope="module")
def cascade() -> Imagen:
    return load.load_pipelines(load.find_pipelines(FOLDER))


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("unet_I", 0),
        pytest.param("unet_I_nonsquare", 0, marks=pytest.mark.slow),
        pytest.param("unet_II", 1, marks=pytest.mark.slow),  # pipelines sample with it below
    ],
)
def test_a_network_predicts_what_diffusers_does(cascade: Imagen, name: str, number: int) -> None:
    trained, wanted = cascade.stages[number], read_reference(name)
    sample, low_res = wanted["sample"], None
    if number:
        sample, seen = np.split(sample, 2, axis=-1)
        low_res = LowRes(seen, wanted["class_labels"])
    text = jnp.asarray(wanted["encoder_hidden_states"])
    found = jax.jit(functools.partial(trained.predict, low_res=low_res))(
        trained.device_params(), jnp.asarray(sample), wanted["timestep"], text
    )
    both = jnp.concatenate([found.eps, found.variance], axis=-1)
    assert relative_error(both, wanted["out"]) < LIMITS["unet"]


def test_the_text_encoder_encodes_padding_as_transformers_does(cascade: Imagen) -> None:
    wanted = read_reference("t5")
    prompts = [str(text) for text in wanted["texts"][:3]]  # the fourth is random tokens
    text, mask = cascade.encoder.encode(prompts)
    assert mask.all()
    assert relative_error(text, wanted["last_hidden_state"][:3]) < LIMITS["t5"]


def test_betas_and_levels_are_those_of_the_scheduler() -> None:
    wanted = read_reference("scheduler")
    np.testing.assert_array_equal(discrete_schedule.betas("cosine"), wanted["betas"])
    signal = 1 / (1 + np.exp(-discrete_schedule.levels("cosine").astype(np.float64)))
    np.testing.assert_allclose(signal, wanted["alphas_cumprod"], rtol=5e-6)


def test_every_time_step_is_found_again_from_its_level() -> None:
    steps = jnp.arange(1000, dtype=jnp.float32)
    for kind in ("cosine", "linear"):
        levels = discrete_schedule.logsnr_of(steps, kind)
        np.testing.assert_array_equal(discrete_schedule.step_of(levels, kind), steps)


@pytest.mark.parametrize(("stage", "number"), [("I", 0), ("II", 1)])
@pytest.mark.parametrize("steps", ["custom", "n50"])
def test_a_step_is_the_schedulers(cascade: Imagen, stage: str, number: int, steps: str) -> None:
    wanted = read_reference("scheduler")
    trained, times = cascade.stages[number].stage, wanted[f"{stage}.{steps}.timesteps"]
    inputs = re.compile(rf"{stage}\.{steps}\.t(\d+)\.sample")
    tried = [int(match[1]) for key in wanted if (match := inputs.fullmatch(key))]
    assert tried
    for time in tried:
        given = {
            key: jnp.asarray(wanted[f"{stage}.{steps}.t{time}.{key}"], jnp.float32)
            for key in ("model_output", "sample", "noise", "prev", "x0")
        }
        place = list(times).index(time)
        later = int(times[place + 1]) if place + 1 < len(times) else None
        x0, previous = _step(trained, given, time, later)
        assert relative_error(x0, np.asarray(given["x0"])) < LIMITS["scheduler"]
        assert relative_error(previous, np.asarray(given["prev"])) < LIMITS["scheduler"]


def _step(
    stage: config.Stage, given: dict[str, jax.Array], time: int, later: int | None
) -> tuple[jax.Array, jax.Array]:
    """One step of the sampler, from what a network predicted."""
    rows = given["sample"].shape[0]
    level = functools.partial(discrete_schedule.logsnr_of, kind="cosine")
    logsnr_t = level(jnp.full(rows, time, jnp.float32))
    logsnr_s = jnp.full(rows, 1e4) if later is None else level(jnp.full(rows, later, jnp.float32))
    eps, share = jnp.split(given["model_output"], 2, axis=-1)
    x0 = prediction.to_x0(eps, given["sample"], logsnr_t, predicts="eps")
    x0 = thresholding.threshold(x0, sampler=stage.sampler)
    step = samplers.StepInputs(
        given["sample"],
        x0,
        x0,
        logsnr_t,
        logsnr_t,
        logsnr_s,
        jax.random.split(jax.random.key(0), rows),
        (share + 1) / 2,
    )
    mean, std = samplers.ancestral_mean_std(step)
    return x0, mean + (std * given["noise"] if time else 0.0)


def test_low_resolution_images_are_enlarged_with_their_corners_on_corners() -> None:
    wanted = read_reference("scheduler")
    found = noise_conditioning.upsample(
        jnp.asarray(wanted["interp.in"]), factor=4, kind="align_corners"
    )
    assert relative_error(found, wanted["interp.out"]) < LIMITS["scheduler"]


# Those of stage I compile another program.
@pytest.mark.parametrize(
    "name",
    [
        name if "superres" in name else pytest.param(name, marks=pytest.mark.slow)
        for name in PIPELINES
    ],
)
def test_a_pipeline_samples_what_diffusers_does(
    cascade: Imagen, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, wanted = PIPELINES[name], read_reference(f"pipe_{name}")
    number = int("superres" in name)
    trained = _configured(cascade, number, given)
    draws = [jnp.asarray(wanted[f"noise.{k}"]) for k in range(len(given["noise_draws"]))]
    monkeypatch.setattr(rng, "normal_each", lambda keys, shape: draws.pop(0))
    images = _sampled(trained, wanted, strength=given.get("strength", 1.0))
    assert not draws
    for step, image in enumerate(images):
        assert relative_error(image, wanted[f"x.{step}"]) < LIMITS["pipelines"]
    assert relative_error(images[-1], wanted["out"]) < LIMITS["pipelines"]


def _configured(cascade: Imagen, number: int, given: dict[str, Any]) -> TrainedStage:
    """A stage with a pipeline's arguments."""
    changes: dict[str, Any] = {"guidance_weight": given["guidance_scale"]}
    if "timesteps" in given:
        changes |= {"timesteps": tuple(given["timesteps"])}
    else:
        changes |= {"steps": given["num_inference_steps"]}
    if number:
        changes |= {"aug_level": given["noise_level"] / 999}
    name = cascade.stages[number].stage.name
    return cascade.with_samplers([(name, changes)]).stages[number]


def _sampled(
    trained: TrainedStage, wanted: dict[str, np.ndarray], *, strength: float
) -> list[jax.Array]:
    """The images after each step, in the order in which the pipeline draws noise."""
    stage, params = trained.stage, trained.device_params()
    states = jnp.asarray(read_reference("t5")["last_hidden_state"])
    numbers = samplers.SamplerParams.from_config(stage.sampler, strength=strength)
    levels = functools.partial(logsnr_at, sampler=stage.sampler, diffusion=stage.diffusion)
    keys = jax.random.split(jax.random.key(0), 2)
    # Of stage I "image" is the one to start from, of stage II the one to enlarge.
    start = wanted.get("original_image", None if stage.is_super_resolution else wanted.get("image"))
    blank = jnp.zeros((2, 16, 16, 3))
    state = sampling_loop.init_state(
        keys,
        numbers,
        blank if start is None else jnp.asarray(start),
        levels=levels,
        beginning="image" if start is not None else "unit_noise",
    )
    low_res = aug_logsnr = None
    if stage.is_super_resolution:
        level = np.full(2, stage.noise_conditioning.sample_level, np.float32)
        low_res, aug_logsnr = noise_conditioning.prepare(
            jnp.asarray(wanted["image"]),
            jnp.asarray(level),
            keys,
            factor=stage.factor,
            options=stage.noise_conditioning,
        )
    predict = _compiled(trained)
    z, found = state.z, []
    for index in range(int(numbers.first), int(numbers.last)):
        rows = [jnp.full(2, index + k, jnp.int32) for k in (0, 1)]
        logsnr_t, logsnr_s = (levels(row, numbers.steps) for row in rows)
        x0, share = predict(params, z, logsnr_t, states, (low_res, aug_logsnr), numbers)
        step = samplers.StepInputs(z, x0, x0, logsnr_t, logsnr_t, logsnr_s, keys, share)
        z = x0 if logsnr_t[0] == CLEANEST else samplers.ancestral_step(step, _unused)
        found.append(z)
    return found


@functools.cache
def _compiled_for(module: Any, stage: config.Stage) -> Any:
    @jax.jit
    def predict(
        params: Any, z: Any, logsnr: Any, states: Any, low_res: tuple[Any, Any], numbers: Any
    ) -> samplers.Denoised:
        options = {"low_res": low_res[0], "aug_logsnr": low_res[1]}
        cond = models.condition(module, params, _captions(states[:2]), **options)
        empty = jnp.broadcast_to(states[2:3], (2, *states.shape[1:]))
        uncond = models.condition(module, params, _captions(empty), **options)
        made = denoiser.build(params, cond, uncond, numbers, module=module, stage=stage)
        found = made(z, logsnr)
        assert isinstance(found, samplers.Denoised)
        return found

    return predict


def _captions(text: Any) -> tuple[Any, Any, Any]:
    """As a network takes them; neither mask counts."""
    return (
        jnp.asarray(text),
        jnp.zeros(text.shape[:2], jnp.bool_),
        jnp.zeros(text.shape[:1], jnp.bool_),
    )


def _compiled(trained: TrainedStage) -> Any:
    """One program for all pipelines of a stage: which steps are made is no part of it."""
    stage = trained.stage
    plain = config.Sampler(
        threshold=stage.sampler.threshold,
        percentile=stage.sampler.percentile,
        threshold_max=stage.sampler.threshold_max,
    )
    return _compiled_for(trained.module, dataclasses.replace(stage, sampler=plain))


def _unused(z: jax.Array, logsnr: jax.Array) -> jax.Array:
    raise AssertionError("the ancestral rule asks once a step")
