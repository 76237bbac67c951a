"""The pipelines of diffusers through the program of `sample`, with the noise that they drew.

The script beside the references made them.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deepfloyd_references import FOLDER, read_reference, relative_error

import imagen_jax
from imagen_jax import rng
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.sample import stage_program
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage

LIMIT = 5e-4
INDICES = np.arange(2, dtype=np.int32)
GIVEN: dict[str, dict[str, Any]] = {
    "inpaint": {"steps": 3, "guidance_weight": 7.0},
    "inpaint_superres": {
        "steps": 5,
        "guidance_weight": 4.0,
        "aug_level": 0.0,
        "strength": 0.8,
    },
    "txt2img_unguided": {"timesteps": (980, 500, 120), "guidance_weight": 1.0},
    "superres_negative": {
        "timesteps": (980, 400, 90),
        "guidance_weight": 4.0,
        "aug_level": 100 / 999,
        "negative": [1, 0],
    },
}


@pytest.fixture(scope="module")
def cascade() -> imagen_jax.Imagen:
    return imagen_jax.load(FOLDER)


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
def test_a_pipeline_samples_what_diffusers_does(
    cascade: imagen_jax.Imagen, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, given = read_reference(f"pipe_{name}"), dict(GIVEN[name])
    strength, negative = given.pop("strength", 1.0), given.pop("negative", [2, 2])
    number = int("superres" in name)
    stage_name = cascade.stages[number].stage.name
    trained = cascade.with_sampler(given, stage=stage_name).stages[number]
    numbers = SamplerParams.from_config(trained.stage.sampler, strength=strength)
    monkeypatch.setattr(rng, "normal_each", _replayed(trained, numbers, wanted))
    inputs = _inputs(trained, wanted, negative)
    size = wanted["out"].shape[1:3]
    step = jax.jit(
        functools.partial(
            stage_program.sample_stage.__wrapped__, program=trained.program(), size=size
        )
    )
    state, params = None, trained.device_params()
    first = int(numbers.first)
    for index in range(first, int(numbers.last)):
        span = numbers._replace(first=np.int32(index), last=np.int32(index + 1))
        state = step(params, inputs, state, span)
        image = state.z
        if inputs.known_mask is not None:
            image = jnp.where(inputs.known_mask, inputs.init_image, image)
        assert relative_error(image, wanted[f"x.{index - first}"]) < LIMIT
    assert state is not None
    assert relative_error(state.x0, wanted["out"]) < LIMIT


def _inputs(
    trained: TrainedStage, wanted: dict[str, np.ndarray], negative: list[int]
) -> SamplerInputs:
    """A pipeline's arguments. Of stage II "image" is the one to enlarge, else to start from."""
    text = read_reference("t5")["last_hidden_state"]
    second = trained.stage.is_super_resolution
    level = trained.stage.noise_conditioning.sample_level
    return SamplerInputs(
        captions=_encoded(text[:2]),
        negatives=_encoded(text[negative]),
        indices=INDICES,
        aug_level=np.full(2, level, np.float32) if second else None,
        low_res=wanted["image"] if second else None,
        init_image=wanted.get("original_image" if second else "image"),
        known_mask=wanted["mask_image"] == 0 if "mask_image" in wanted else None,
    )


def _encoded(text: np.ndarray) -> EncodedText:
    """Every token counts, those of padding included."""
    return EncodedText(text, np.ones(text.shape[:2], np.bool_), np.ones(len(text), np.bool_))


def _replayed(trained: TrainedStage, numbers: SamplerParams, wanted: dict[str, np.ndarray]) -> Any:
    """`rng.normal_each` with the noise that a pipeline drew: by the key, what it drew then.

    Noise of a key that draws nothing there is not a number.
    """
    keys = stage_program.image_keys(trained.stage, 0, INDICES)
    sampler = rng.fold_keys(keys, "sampler")
    drawn = [rng.fold_keys(sampler, "start")]
    if trained.stage.is_super_resolution:
        drawn.append(rng.fold_keys(keys, "aug_noise"))
    for step in range(int(numbers.first), int(numbers.last)):
        drawn.append(jax.vmap(lambda key, step=step: rng.fold(key, "step", step))(sampler))
    noise = np.stack([wanted[f"noise.{k}"] for k in range(sum("noise" in n for n in wanted))])
    assert len(drawn) - len(noise) in (0, 1)  # none at time step 0
    known = jnp.stack([jax.random.key_data(key) for key in drawn[: len(noise)]])

    def normal_each(keys: Any, shape: tuple[int, ...]) -> jax.Array:
        same = (known == jax.random.key_data(keys)[None]).all(axis=(1, 2))
        found = jnp.asarray(noise)[jnp.argmax(same)]
        assert found.shape[1:] == shape
        return jnp.where(same.any(), found, jnp.nan)

    return normal_each
