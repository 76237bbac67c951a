"""What is wanted besides prompts: each wish is met to the pixel, or refused in a sentence."""

import dataclasses

import numpy as np
import pytest
from small_cascade import make_painter, make_prompts

from imagen_jax.image import to_uint8
from imagen_jax.sample import cascade, sides, stage_program
from imagen_jax.sample.progress import Preview, SamplingCallbacks
from imagen_jax.sample.request import PLAIN, Request

COUNT = 2


def paint(painters, request: Request = PLAIN, prompts=None, **options) -> dict[str, np.ndarray]:
    prompts = make_prompts(COUNT) if prompts is None else prompts
    return cascade.generate(painters, prompts, seed=0, batch_size=8, request=request, **options)


def pictures(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (COUNT, height, width, 3), np.uint8)


def shown(images: np.ndarray) -> np.ndarray:
    return np.asarray(to_uint8(images))


def test_at_strength_0_the_picture_comes_back(painters) -> None:
    given = pictures(32, 32)
    found = paint(painters, Request(picture=given, strength=0.0))
    np.testing.assert_array_equal(shown(found["sr32"]), given)
    small = given.reshape(COUNT, 8, 4, 8, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(found["base8"], small / 127.5 - 1, atol=1e-6)


def test_strength_is_how_far_it_goes(painters) -> None:
    base, given = [painters[0]], pictures(8, 8)
    steps = painters[0].stage.sampler.steps
    distances = []
    for strength in (1.0, (steps - 1) / steps, 1 / steps, 0.0):
        found = paint(base, Request(picture=given, strength=strength))["base8"]
        distances.append(np.abs(found - paint(base)["base8"]).mean())
    assert distances[0] == 0.0  # all steps, from pure noise: the picture is not seen
    assert 0.0 < distances[1] < distances[-1]
    assert len(set(distances)) == 4


def test_known_pixels_stay_to_the_pixel_and_others_are_painted(painters) -> None:
    given, mask = pictures(32, 32), np.zeros((COUNT, 32, 32), bool)
    mask[:, :, :15] = True  # halves a pixel of every smaller stage
    found = paint(painters, Request(picture=given, keep=mask))
    np.testing.assert_array_equal(shown(found["sr32"])[mask], given[mask])
    assert (shown(found["sr32"])[~mask] != given[~mask]).mean() > 0.9
    small = given.reshape(COUNT, 8, 4, 8, 4, 3).mean(axis=(2, 4)) / 127.5 - 1
    np.testing.assert_allclose(found["base8"][:, :, :3], small[:, :, :3], atol=1e-6)
    assert np.abs(found["base8"][:, :, 3] - small[:, :, 3]).min() > 0  # partly known is unknown
    again = paint(painters, Request(picture=given, keep=mask, repeats=2))
    np.testing.assert_array_equal(shown(again["sr32"])[mask], given[mask])
    assert np.abs(again["sr32"] - found["sr32"]).max() > 0.01


def test_a_negative_prompt_takes_the_place_of_no_text() -> None:
    """Away from the prompt itself guidance leads nowhere; away from no text it is the usual."""
    prompts, painter = make_prompts(COUNT), make_painter("tiny/base8", guidance_weight=4.0)
    alone = make_painter("tiny/base8", guidance_weight=1.0)

    def against(negatives) -> np.ndarray:
        return paint([painter], prompts=dataclasses.replace(prompts, negatives=negatives))["base8"]

    itself = against(prompts.captions)
    np.testing.assert_allclose(itself, paint([alone])["base8"], atol=1e-3)
    usual = paint([painter])["base8"]
    np.testing.assert_array_equal(against(prompts.captions.nulled()), usual)
    others = prompts.rows(np.array([1, 0])).captions
    assert np.abs(against(others) - usual).mean() > 1e-3


def test_pictures_need_not_be_square(painters) -> None:
    found = paint(painters, Request(sides=(32, 64)))
    assert {n: x.shape[1:3] for n, x in found.items()} == {
        "base8": (8, 16),
        "sr16": (16, 32),
        "sr32": (32, 64),
    }
    given = pictures(32, 64)
    kept = paint(painters, Request(picture=given, strength=0.0))
    np.testing.assert_array_equal(shown(kept["sr32"]), given)


def test_any_picture_is_enlarged(painters) -> None:
    """Odd sides are filled up, and the filling cut off."""
    upscalers = painters[1:]
    odd = pictures(9, 15)
    found = paint(upscalers, Request(low_res=odd))
    assert {n: x.shape[1:3] for n, x in found.items()} == {"sr16": (18, 30), "sr32": (36, 60)}
    stages = [p.stage for p in upscalers]
    wide = sides.pad_low_res(odd, stages)
    np.testing.assert_array_equal(wide[:, :9, :15], odd)
    np.testing.assert_array_equal(wide[:, 9:, :15], np.repeat(odd[:, 8:9], wide.shape[1] - 9, 1))
    whole = paint(upscalers, Request(low_res=wide))
    np.testing.assert_array_equal(found["sr32"], whole["sr32"][:, :36, :60])


def test_glimpses_are_of_the_same_painting(painters) -> None:
    seen: list[Preview] = []
    watched = paint(painters[:2], following=SamplingCallbacks(every=3, glimpse=seen.append))
    unwatched = paint(painters[:2])
    for name, images in watched.items():
        np.testing.assert_allclose(images, unwatched[name], atol=1e-5)
        steps = next(p.stage.sampler.steps for p in painters if p.stage.name == name)
        mine = [g for g in seen if g.stage == name]
        assert [g.step for g in mine] == [min(i, steps) for i in range(3, steps + 3, 3)]
        assert all(g.steps == steps and g.start == 0 for g in mine)
        assert all(g.images.shape == images.shape for g in mine)
        np.testing.assert_array_equal(mine[-1].images, images)
        if len(mine) > 1:
            assert np.abs(mine[0].images - images).mean() > 1e-3


def test_a_new_number_compiles_nothing() -> None:
    painter = make_painter("tiny/base8", threshold="static")
    plain = paint([painter])["base8"]
    before = stage_program.sample_stage._cache_size()
    for changes in ({"steps": 5}, {"guidance_rescale": 0.7}, {"stochasticity": 0.9}):
        sampler = dataclasses.replace(painter.stage.sampler, **changes)
        stage = dataclasses.replace(painter.stage, sampler=sampler)
        changed = paint([dataclasses.replace(painter, stage=stage)])["base8"]
        assert np.abs(changed - plain).max() > 1e-4, changes
    assert stage_program.sample_stage._cache_size() == before


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"strength": 1.5}, "strength=1.5: must be a number from 0 to 1"),
        ({"strength": 0.5}, "strength=0.5 needs a picture to begin with"),
        ({"repeats": 0}, "repeats=0: must be a whole number of 1 or more"),
        ({"repeats": 2}, "repeats=2 needs keep"),
        ({"keep": np.zeros((1, 8, 8), bool)}, "keep says where a picture stays: give picture"),
        ({"low_res": np.zeros((1, 8, 8), np.uint8)}, r"low_res is uint8 \(1, 8, 8\), wanted uint8"),
        ({"picture": np.zeros((1, 8, 8, 3))}, r"picture is float64 \(1, 8, 8, 3\), wanted uint8"),
        (
            {"picture": pictures(8, 8), "keep": np.zeros((1, 8, 8), bool)},
            r"keep is bool \(1, 8, 8\), wanted bool \(2, 8, 8\)",
        ),
        (
            {"picture": pictures(8, 8), "sides": (8, 8)},
            "sides and picture exclude each other: each says the sides",
        ),
    ],
)
def test_wishes_that_cannot_be_met(wish: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Request(**wish)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"sides": (32, 36)}, "base8 cannot paint 8x9 pixels: .* must divide by 2"),
        ({"picture": pictures(30, 32)}, "30x32 pixels: sr32 paints 4 times the sides of base8"),
        ({"picture": pictures(32, 32)[:1]}, "1 pictures in picture for 2 prompts"),
        ({"negative": ("a", "b", "c")}, "3 negative prompts for 2 prompts"),
        ({"low_res": pictures(8, 8)}, "base8 is none: say with `start` where to begin"),
    ],
)
def test_wishes_that_do_not_fit_the_cascade(painters, wish, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        paint(painters, Request(**wish))
