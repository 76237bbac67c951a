"""Sampling from DeepFloyd IF's folders: the whole cascade, other samplers, options by name."""

from pathlib import Path

import numpy as np
import pytest
from command_line import run_imagen
from deepfloyd_references import FOLDER
from safetensors.numpy import load_file

import imagen_jax
from imagen_jax.config.unread import why_unread
from imagen_jax.export import stablehlo
from imagen_jax.text.encoder import TextEncoder

PROMPT = "a photo of a red cube on a blue table"


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "ddim"},
        {"kind": "dpmpp_2m", "spacing": "logsnr"},
        {"kind": "edm_heun", "spacing": "karras"},
        {"guidance_weight": 1.0},
        {"guidance_interval": (0.1, 2.0), "guidance_rescale": 0.5},
        {"known_pixels": "noised"},
    ],
    ids=str,
)
def test_every_sampler_samples(cascade: imagen_jax.Imagen, changes: dict[str, object]) -> None:
    changed = cascade.with_samplers([(None, {"steps": 4, "timesteps": (), **changes})])
    given = np.full((2, 16, 16, 3), 128, np.uint8)
    mask = np.zeros((2, 16, 16), np.bool_)
    mask[:, 4:12, 4:12] = True
    options = {"init_image": given, "mask": mask} if "known_pixels" in changes else {}
    found = changed.sample([PROMPT, ""], last_stage="deepfloyd_1", **options)["deepfloyd_1"]
    assert found.shape == (2, 16, 16, 3)
    assert found.std() > 0
    alone = changed.sample(
        [""],
        last_stage="deepfloyd_1",
        first_index=1,
        **{name: image[1:] for name, image in options.items()},
    )["deepfloyd_1"]
    assert np.abs(alone[0].astype(int) - found[1]).max() <= 1


@pytest.mark.slow
def test_a_cascade_samples_images_that_are_no_squares(cascade: imagen_jax.Imagen) -> None:
    changed = cascade.with_samplers([(None, {"steps": 2})])
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
        one.with_samplers([(None, {"steps": 2})]).sample([PROMPT], last_stage="deepfloyd_1")
        for one in (exported, cascade)
    ]
    np.testing.assert_array_equal(images[0]["deepfloyd_1"], images[1]["deepfloyd_1"])
    program = stablehlo.read_program(bundle / "text" / stablehlo.ENCODE)
    tensors = load_file(bundle / "text" / "weights-00001-of-00001.safetensors")
    assert isinstance(exported.encoder, TextEncoder)
    tokens, mask = exported.encoder.tokenizer.tokenize([PROMPT], max_length=77)
    found = program.call(tensors, {"tokens": tokens, "text_mask": mask})
    np.testing.assert_allclose(found, exported.encoder.encode([PROMPT])[0], atol=1e-5)
