"""Sampling from DeepFloyd IF's folders: the whole cascade, other samplers, options by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_imagen
from deepfloyd_references import FOLDER
from safetensors.numpy import load_file
from small_cascade import make_stage

import imagen_jax
from imagen_jax import config
from imagen_jax.config.unread import why_unread
from imagen_jax.export import stablehlo
from imagen_jax.text.encoder import TextEncoder

PROMPT = "a photo of a red cube on a blue table"
PAIR = (PROMPT, "")
TIMES = (999, 600, 250, 0)


@pytest.fixture(scope="module")
def cascade() -> imagen_jax.Imagen:
    return imagen_jax.load(FOLDER)


def test_the_null_caption_is_the_encoding_of_the_empty_prompt(cascade: imagen_jax.Imagen) -> None:
    inputs = cascade.encode([PROMPT, "two owls"])
    empty, _ = cascade.encoder.encode([""])
    assert inputs.negatives is not None
    for row in inputs.negatives.text:
        np.testing.assert_allclose(row, empty[0], atol=1e-5)
    assert np.abs(empty).min(axis=-1).max() > 0  # padding is no zeros
    asked = cascade.encode([PROMPT, "two owls"], negative_prompt=["", "blue"])
    blue, _ = cascade.encoder.encode(["blue"])
    assert asked.negatives is not None
    np.testing.assert_allclose(asked.negatives.text[0], empty[0], atol=1e-5)
    np.testing.assert_allclose(asked.negatives.text[1], blue[0], atol=1e-5)
    assert np.abs(blue[0] - empty[0]).max() > 0.1


def test_prompts_are_made_lower_case(cascade: imagen_jax.Imagen) -> None:
    texts = cascade.encoder.encode([PROMPT, f"  {PROMPT.upper()} "])[0]
    np.testing.assert_array_equal(texts[0], texts[1])


def test_an_option_that_would_do_nothing_is_named(cascade: imagen_jax.Imagen) -> None:
    first = cascade.stages[0].stage
    assert first.sampler.ends_noisy
    assert not why_unread(first, "final_noise", False)
    with pytest.raises(ValueError, match=r"steps 3 would change nothing: .*timesteps of it"):
        cascade.with_sampler({"timesteps": (999, 0)}).with_sampler({"steps": 3})
    with pytest.raises(ValueError, match="final_noise False would change nothing"):
        cascade.with_sampler({"kind": "ddim"}).with_sampler({"final_noise": False})


def sampled(
    cascade: imagen_jax.Imagen, changes: dict[str, object], prompts: Any = PAIR, **options: Any
) -> np.ndarray:
    """Stage I's images of two prompts."""
    changed = cascade.with_samplers([(None, {"timesteps": TIMES, **changes})])
    return changed.sample(prompts, last_stage="deepfloyd_1", **options)["deepfloyd_1"].astype(int)


@pytest.fixture(scope="module")
def plain(cascade: imagen_jax.Imagen) -> np.ndarray:
    """Stage I's images with four of DeepFloyd's own steps."""
    return sampled(cascade, {})


def differ(found: np.ndarray, other: np.ndarray) -> bool:
    """More than rounding: a grey level and more, on average."""
    assert found.shape == other.shape
    return bool(np.abs(found - other).mean() > 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "ddim"},
        {"kind": "dpmpp_2m"},
        {"kind": "dpmpp_2m", "timesteps": (), "steps": 4, "spacing": "logsnr"},
        {"kind": "edm_heun", "timesteps": (), "steps": 4, "spacing": "karras"},
        {"guidance_weight": 1.0},
    ],
    ids=str,
)
def test_every_sampler_samples(
    cascade: imagen_jax.Imagen, plain: np.ndarray, changes: dict[str, object]
) -> None:
    found = sampled(cascade, changes)
    assert differ(found, plain)
    assert min(image.std() for image in found) > 1
    later = sampled(cascade, changes, ("", "two owls"), first_index=1)
    assert np.abs(later[0] - found[1]).max() <= 1


@pytest.mark.slow
def test_guidance_has_its_interval_and_is_rescaled(
    cascade: imagen_jax.Imagen, plain: np.ndarray
) -> None:
    """Time steps 600 and 250 are in the interval; one of 1 is no guidance at all."""
    everywhere = sampled(cascade, {"guidance_interval": (0.0, np.inf)})
    assert np.abs(everywhere - plain).max() <= 1
    assert differ(sampled(cascade, {"guidance_interval": (0.1, 2.0)}), plain)
    nowhere = sampled(cascade, {"guidance_interval": (1e9, 2e9)})
    assert np.abs(nowhere - sampled(cascade, {"guidance_weight": 1.0})).max() <= 1
    assert differ(sampled(cascade, {"guidance_rescale": 0.5}), plain)


@pytest.mark.slow
def test_images_and_masks_to_start_from(cascade: imagen_jax.Imagen, plain: np.ndarray) -> None:
    given = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    half = sampled(cascade, {}, init_image=given, strength=0.5)
    assert differ(half, plain)
    assert differ(half, given.astype(int))
    nothing = sampled(cascade, {}, init_image=given, strength=0.0)
    np.testing.assert_array_equal(nothing, given)
    mask = np.zeros((2, 16, 16), np.bool_)
    mask[:, 4:12, 4:12] = True
    clean, noised = (
        sampled(cascade, {"known_pixels": kind}, init_image=given, mask=mask)
        for kind in ("clean", "noised")
    )
    for found in (clean, noised):
        np.testing.assert_array_equal(found[~mask], given[~mask])
        assert differ(found[mask], given.astype(int)[mask])
    assert differ(clean[mask], noised[mask])


@pytest.mark.slow
def test_the_second_stage_enlarges_any_image_and_starts_from_others() -> None:
    """Super-resolution plain, with an image to start from, and with a mask; none of a square."""
    second = imagen_jax.load(FOLDER / "if_II", text_encoder=FOLDER / "if_I" / "text_encoder")
    second = second.with_sampler({"timesteps": (999, 500, 0)})
    assert [s.stage.name for s in second.stages] == ["deepfloyd_2"]
    drawn = np.random.default_rng(0)
    small = drawn.integers(0, 256, (2, 4, 8, 3), np.uint8)
    given = drawn.integers(0, 256, (2, 16, 32, 3), np.uint8)

    def enlarged(**options: Any) -> np.ndarray:
        return second.sample(PAIR, **options)["deepfloyd_2"].astype(int)

    plain = enlarged(low_res=small)
    assert plain.shape == given.shape
    assert differ(plain, enlarged(low_res=small[::-1]))
    half = enlarged(low_res=small, init_image=given, strength=0.7)
    assert differ(half, plain)
    assert differ(half, enlarged(low_res=small, init_image=given[::-1], strength=0.7))
    mask = np.zeros(given.shape[:3], np.bool_)
    mask[:, :, 8:24] = True
    kept = enlarged(low_res=small, init_image=given, mask=mask)
    np.testing.assert_array_equal(kept[~mask], given[~mask])
    assert differ(kept[mask], given.astype(int)[mask])
    other = enlarged(low_res=small[::-1], init_image=given, mask=mask)
    assert differ(kept[mask], other[mask])


@pytest.mark.parametrize(
    ("changes", "first"),
    [({"steps": 150}, 894), ({"steps": 185}, 920), ({"timesteps": (949, 0)}, 949)],
    ids=str,
)
def test_a_late_start_from_pure_noise_is_warned_of(
    cascade: imagen_jax.Imagen, changes: dict[str, object], first: int
) -> None:
    changed = cascade.with_sampler(changes, stage="deepfloyd_1")
    with pytest.warns(
        UserWarning, match=f"deepfloyd_1 begins with pure noise at time step {first}"
    ):
        changed.stream(PROMPT)


@pytest.mark.parametrize("changes", [{"steps": 100}, {"timesteps": (950, 0)}, {"kind": "ddim"}])
def test_other_starts_are_not_warned_of(
    cascade: imagen_jax.Imagen, changes: dict[str, object]
) -> None:
    cascade.with_sampler(changes, stage="deepfloyd_1").stream(PROMPT)
    late = cascade.with_sampler({"steps": 150}, stage="deepfloyd_1")
    image = np.zeros((64, 64, 3), np.uint8)
    late.stream(PROMPT, init_image=image, strength=0.5)


def test_time_steps_are_for_networks_that_count_them() -> None:
    shapes = imagen_jax.load("shapes")
    for changes in ({"spacing": "leading"}, {"timesteps": (999, 500, 0)}):
        with pytest.raises(ValueError, match=r"stage base16: .* has continuous time: use"):
            shapes.with_sampler(changes)
    with pytest.raises(ValueError, match=r"steps=1001: .* 1,000 time steps at most"):
        config.Sampler(spacing="leading", steps=1001)


@pytest.mark.slow
def test_a_cascade_samples_images_that_are_no_squares(cascade: imagen_jax.Imagen) -> None:
    changed = cascade.with_samplers([(None, {"timesteps": (999, 0)})])
    found = changed.sample([PROMPT], size=(64, 96))
    assert {name: image.shape[1:] for name, image in found.items()} == {
        "deepfloyd_1": (16, 24, 3),
        "deepfloyd_2": (64, 96, 3),
    }
    with pytest.raises(ValueError, match="multiples of 4"):
        changed.sample([PROMPT], size=(24, 40), last_stage="deepfloyd_2")


@pytest.mark.slow
def test_a_bundle_samples_what_the_folders_do(
    cascade: imagen_jax.Imagen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, options, text encoder and its program, after `imagen export`."""
    bundle = tmp_path / "bundle"
    arguments = ("export", str(FOLDER), "--out", str(bundle), "--dtype", "float32")
    assert run_imagen(monkeypatch, *arguments) == 0
    exported = imagen_jax.load(bundle)
    assert [s.stage for s in exported.stages] == [s.stage for s in cascade.stages]
    images = [
        one.with_samplers([(None, {"timesteps": (999, 0)})]).sample(
            [PROMPT], last_stage="deepfloyd_1"
        )
        for one in (exported, cascade)
    ]
    np.testing.assert_array_equal(images[0]["deepfloyd_1"], images[1]["deepfloyd_1"])
    program = stablehlo.read_program(bundle / "text" / stablehlo.ENCODE)
    tensors = load_file(bundle / "text" / "weights-00001-of-00001.safetensors")
    assert isinstance(exported.encoder, TextEncoder)
    tokens, mask = exported.encoder.tokenizer.tokenize([PROMPT], max_length=77)
    found = program.call(tensors, {"tokens": tokens, "text_mask": mask})
    np.testing.assert_allclose(found, exported.encoder.encode([PROMPT])[0], atol=1e-5)


@pytest.mark.slow
def test_its_stages_and_our_own_follow_one_another(cascade: imagen_jax.Imagen) -> None:
    """Each with its own text encoder: images go from one cascade's call to the next."""
    ours = imagen_jax.Imagen(
        stages=(make_stage("tiny/base8"), make_stage("tiny/sr32")),
        encoder=TextEncoder.from_config(config.load("tiny/base8")[0].text),
    )
    theirs = cascade.with_sampler({"timesteps": TIMES})
    small = theirs.sample(PAIR, last_stage="deepfloyd_1")
    large = ours.sample(PAIR, first_stage="sr32", low_res=small["deepfloyd_1"])["sr32"]
    assert large.shape == (2, 32, 32, 3)
    other = ours.sample(PAIR, first_stage="sr32", low_res=255 - small["deepfloyd_1"])["sr32"]
    assert differ(large.astype(int), other.astype(int))
    base = ours.sample(PAIR, last_stage="base8")["base8"]
    enlarged = theirs.sample(PAIR, first_stage="deepfloyd_2", low_res=base)["deepfloyd_2"]
    assert enlarged.shape == (2, 32, 32, 3)
