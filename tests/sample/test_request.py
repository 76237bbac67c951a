"""What is wanted besides prompts: it is there to the pixel, or refused in a sentence."""

import dataclasses

import numpy as np
import pytest
from small_cascade import SMALL_BASE, make_prompts, make_stage

from imagen_jax.image import to_float, to_uint8
from imagen_jax.sample import cascade, request, stage_program
from imagen_jax.sample.progress import Preview, SamplingCallbacks
from imagen_jax.sample.request import PLAIN, Request, pad_low_res

pytestmark = pytest.mark.usefixtures("one_device")  # on eight: `test_cascade`, `test_stream`
COUNT = 2


def sample(stages, request: Request = PLAIN, prompts=None, **options) -> dict[str, np.ndarray]:
    prompts = make_prompts(COUNT) if prompts is None else prompts
    return cascade.generate(stages, prompts, seed=0, batch_size=8, request=request, **options)


def images_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (COUNT, height, width, 3), np.uint8)


def shown(images: np.ndarray) -> np.ndarray:
    return np.asarray(to_uint8(images))


def test_strength_0_returns_the_image(stages) -> None:
    given = images_of(16, 16)
    found = sample(stages[:2], Request(init_image=given, strength=0.0))
    np.testing.assert_array_equal(shown(found["sr16"]), given)
    small = given.reshape(COUNT, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(found["base8"], small / 127.5 - 1, atol=1e-6)


def test_strength_is_how_far_it_goes(stages) -> None:
    base, given = [stages[0]], images_of(8, 8)
    steps = stages[0].stage.sampler.steps
    distances = []
    for strength in (1.0, (steps - 1) / steps, 1 / steps, 0.0):
        found = sample(base, Request(init_image=given, strength=strength))["base8"]
        distances.append(np.abs(found - sample(base)["base8"]).mean())
    assert distances[0] == 0.0  # all steps, from pure noise: the image is not seen
    assert 0.0 < distances[1] < distances[-1]
    assert len(set(distances)) == 4


def test_known_pixels_stay_to_the_pixel_and_others_are_sampled(stages) -> None:
    stages, given, mask = stages[:2], images_of(16, 16), np.zeros((COUNT, 16, 16), bool)
    mask[:, :, :7] = True  # halves a pixel of the smaller stage
    found = sample(stages, Request(init_image=given, mask=~mask))
    np.testing.assert_array_equal(shown(found["sr16"])[mask], given[mask])
    assert (shown(found["sr16"])[~mask] != given[~mask]).mean() > 0.9
    small = given.reshape(COUNT, 8, 2, 8, 2, 3).mean(axis=(2, 4)) / 127.5 - 1
    np.testing.assert_allclose(found["base8"][:, :, :3], small[:, :, :3], atol=1e-6)
    assert np.abs(found["base8"][:, :, 3] - small[:, :, 3]).min() > 0  # partly known is unknown
    again = sample(stages, Request(init_image=given, mask=~mask, num_resamples=2))
    np.testing.assert_array_equal(shown(again["sr16"])[mask], given[mask])
    assert np.abs(again["sr16"] - found["sr16"]).max() > 0.01


@pytest.mark.slow
def test_images_are_enlarged_from_an_image_to_start_from(stages) -> None:
    """One of any size, whose edges are repeated for the networks and cut off again."""
    upscalers, low, given = stages[1:], images_of(9, 7), images_of(36, 28)
    nothing = sample(upscalers, Request(low_res=low, init_image=given, strength=0.0))
    np.testing.assert_array_equal(shown(nothing["sr32"]), given)
    both, other = (
        sample(upscalers, Request(low_res=low, init_image=image, strength=0.5))["sr32"]
        for image in (given, given[::-1])
    )
    assert both.shape == (COUNT, 36, 28, 3)
    assert np.abs(both - other).mean() > 0.01
    assert np.abs(both - sample(upscalers, Request(low_res=low))["sr32"]).mean() > 0.01
    mask = np.zeros((COUNT, 36, 28), bool)
    mask[:, :, :15] = True
    found = sample(upscalers, Request(low_res=low, init_image=given, mask=mask))["sr32"]
    np.testing.assert_array_equal(shown(found)[~mask], given[~mask])
    assert (shown(found)[mask] != given[mask]).mean() > 0.9
    with pytest.raises(ValueError, match=r"36x28 pixels, but low_res, of 8x8, is .* 32x32 by sr32"):
        sample(upscalers, Request(low_res=images_of(8, 8), init_image=given))


def test_a_negative_prompt_takes_the_place_of_no_text() -> None:
    """Away from the prompt itself guidance leads nowhere; away from no text it is the usual."""
    prompts, trained = make_prompts(COUNT), make_stage(SMALL_BASE, guidance_weight=4.0)
    alone = make_stage(SMALL_BASE, guidance_weight=1.0)

    def against(negatives) -> np.ndarray:
        return sample([trained], prompts=prompts._replace(negatives=negatives))["base8"]

    itself = against(prompts.captions)
    np.testing.assert_allclose(itself, sample([alone])["base8"], atol=1e-3)
    usual = sample([trained])["base8"]
    np.testing.assert_array_equal(against(prompts.captions.without_text()), usual)
    others = prompts.rows(np.array([1, 0])).captions
    assert np.abs(against(others) - usual).mean() > 1e-3


def test_images_become_floats_a_batch_at_a_time(stages, monkeypatch) -> None:
    """As bytes they take a quarter of the memory."""
    taken = []

    def counted(pixels: np.ndarray) -> np.ndarray:
        taken.append(len(pixels))
        return to_float(pixels)

    monkeypatch.setattr(request, "to_float", counted)
    given = np.concatenate([images_of(8, 8)] * 10)
    mask = np.ones(given.shape[:3], bool)
    wanted = Request(init_image=given, mask=mask, strength=0.5)
    sample(stages[:1], wanted, make_prompts(len(given)))
    assert taken == [8, 8, 8]


@pytest.mark.slow
def test_images_need_not_be_square(stages) -> None:
    found = sample(stages, Request(size=(32, 64)))
    assert {n: x.shape[1:3] for n, x in found.items()} == {
        "base8": (8, 16),
        "sr16": (16, 32),
        "sr32": (32, 64),
    }
    given = images_of(32, 64)
    kept = sample(stages, Request(init_image=given, strength=0.0))
    np.testing.assert_array_equal(shown(kept["sr32"]), given)


def test_any_image_is_enlarged(stages) -> None:
    """Odd sides are filled up, and the filling cut off."""
    upscalers = stages[1:2]  # both: `test_images_are_enlarged_from_an_image_to_start_from`
    odd = images_of(9, 15)
    found = sample(upscalers, Request(low_res=odd))
    assert {n: x.shape[1:3] for n, x in found.items()} == {"sr16": (18, 30)}
    stages = [p.stage for p in upscalers]
    wide = pad_low_res(odd, stages)
    np.testing.assert_array_equal(wide[:, :9, :15], odd)
    np.testing.assert_array_equal(wide[:, 9:, :15], np.repeat(odd[:, 8:9], wide.shape[1] - 9, 1))
    whole = sample(upscalers, Request(low_res=wide))
    np.testing.assert_array_equal(found["sr16"], whole["sr16"][:, :18, :30])


def test_previews_are_of_the_same_images(stages) -> None:
    seen: list[Preview] = []
    watched = sample(
        stages[:2], callbacks=SamplingCallbacks(preview_every=3, on_preview=seen.append)
    )
    unwatched = sample(stages[:2])
    for name, images in watched.items():
        np.testing.assert_allclose(images, unwatched[name], atol=1e-5)
        steps = next(p.stage.sampler.steps for p in stages if p.stage.name == name)
        mine = [g for g in seen if g.stage == name]
        assert [g.step for g in mine] == [min(i, steps) for i in range(3, steps + 3, 3)]
        assert all(g.steps == steps and g.first_index == 0 for g in mine)
        assert all(g.images.shape == images.shape for g in mine)
        np.testing.assert_array_equal(mine[-1].images, images)
        if len(mine) > 1:
            assert np.abs(mine[0].images - images).mean() > 1e-3


def test_a_new_number_compiles_nothing() -> None:
    trained = make_stage(SMALL_BASE, threshold="static")
    plain = sample([trained])["base8"]
    before = stage_program.sample_stage._cache_size()
    for changes in ({"steps": 5}, {"guidance_rescale": 0.7}, {"stochasticity": 0.9}):
        sampler = dataclasses.replace(trained.stage.sampler, **changes)
        stage = dataclasses.replace(trained.stage, sampler=sampler)
        changed = sample([dataclasses.replace(trained, stage=stage)])["base8"]
        assert np.abs(changed - plain).max() > 1e-4, changes
    assert stage_program.sample_stage._cache_size() == before


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"strength": 1.5}, "strength=1.5: must be a number from 0 to 1"),
        ({"strength": 0.5}, "strength=0.5 needs init_image"),
        ({"num_resamples": 0}, "num_resamples=0: must be a whole number from 1 to 1000"),
        ({"num_resamples": 2}, "num_resamples=2 needs mask"),
        ({"mask": np.ones((1, 8, 8), bool)}, "mask needs init_image: it says where that is"),
        ({"low_res": np.zeros((1, 8, 8), np.uint8)}, r"low_res is uint8 \(1, 8, 8\), wanted uint8"),
        (
            {"init_image": np.zeros((1, 8, 8, 3))},
            r"init_image is float64 \(1, 8, 8, 3\), wanted uint8",
        ),
        (
            {"init_image": images_of(8, 8), "mask": np.ones((1, 8, 8), bool)},
            r"mask is bool \(1, 8, 8\), wanted bool \(2, 8, 8\)",
        ),
        (
            {"init_image": images_of(8, 8), "mask": np.zeros((2, 8, 8), bool)},
            "mask is false for every pixel of image 0",
        ),
        (
            {"init_image": images_of(8, 8), "size": (8, 8)},
            "size and init_image exclude each other: each sets the size",
        ),
    ],
)
def test_requests_that_cannot_be_met(wish: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Request(**wish)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"size": (32, 36)}, "base8 cannot sample 8x9 pixels: .* must be multiples of 2"),
        ({"init_image": images_of(30, 32)}, "multiples of 4, .*; the nearest are 32x32"),
        ({"init_image": images_of(32, 32)[:1]}, "1 images in init_image for 2 prompts"),
        ({"negative_prompt": ("a", "b", "c")}, "3 negative prompts for 2 prompts"),
        ({"low_res": images_of(8, 8)}, "base8 is none: name one in first_stage"),
    ],
)
def test_requests_that_do_not_fit_the_cascade(stages, wish, sentence: str) -> None:
    of_two_levels = make_stage("tiny/base8")
    with pytest.raises(ValueError, match=sentence):
        sample([of_two_levels, *stages[1:]], Request(**wish))
