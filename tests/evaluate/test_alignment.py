"""The alignment oracle: right on real pictures at every stage's size, low on wrong captions."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data.synthetic.shapes import render, scenes
from imagen_jax.data.synthetic.shapes.captions import caption, parse
from imagen_jax.data.synthetic.shapes.scenes import Grammar, Scene, Shape, sample_scene
from imagen_jax.evaluate import alignment, detector

COUNT = 96
STATED = ("background", "count", "colour", "shape", "size", "relation")


@pytest.fixture(scope="module")
def real() -> tuple[list[Scene], list[str], list[np.ndarray]]:
    found, words, pictures = [], [], []
    for index in range(COUNT):
        rng = np.random.default_rng((11, index))
        found.append(sample_scene(rng, grammar=Grammar()))
        words.append(caption(found[-1], rng))
        pictures.append(render.render(found[-1], rng))
    return found, words, pictures


def _resized(picture: np.ndarray, size: int, filter: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((size, size), filter))


def _down(picture: np.ndarray, size: int) -> np.ndarray:
    return picture if size == 256 else _resized(picture, size, Image.Resampling.BOX)


def _noisy(picture: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(scale=255 * sigma, size=picture.shape)
    return np.uint8(np.clip(np.round(picture + noise), 0, 255))


@pytest.mark.parametrize("size", [16, 64, 256])
def test_real_pictures_are_right_at_every_size(real, size: int) -> None:
    _, words, pictures = real
    scores = alignment.score([_down(picture, size) for picture in pictures], words)
    stated = {*STATED, "all"} | ({"fill"} if size >= 64 else set())
    assert set(scores) == stated
    assert {name: share for name, (share, _) in scores.items() if share < 0.98} == {}
    assert scores["count"][1] == COUNT
    assert 0.2 * COUNT < scores["relation"][1] < scores["size"][1] + COUNT / 2 < COUNT * 1.5


@pytest.mark.parametrize("size", [16, 64])
def test_wrong_captions_score_low(real, size: int) -> None:
    _, words, pictures = real
    scores = alignment.score([_down(p, size) for p in pictures], words[1:] + words[:1])
    limits = {"background": 0.4, "count": 0.65, "colour": 0.2, "shape": 0.2, "size": 0.65}
    limits |= {"relation": 0.4, "all": 0.05} | ({"fill": 0.45} if size >= 64 else {})
    assert {name: share for name, (share, _) in scores.items() if share > limits[name]} == {}


@pytest.mark.parametrize("size", [16, 64])
def test_speckle_changes_no_background_count_or_colour(real, size: int) -> None:
    _, words, pictures = real
    scores = alignment.score([_noisy(_down(p, size), 0.03) for p in pictures], words)
    assert min(scores[name][0] for name in ("background", "count", "colour", "relation")) > 0.98
    assert scores["shape"][0] > 0.9
    assert scores["size"][0] > 0.95


def test_a_blurred_picture_keeps_all_but_its_detail(real) -> None:
    _, words, pictures = real
    blurred = [_resized(_down(p, 16), 64, Image.Resampling.BILINEAR) for p in pictures]
    scores = alignment.score(blurred, words)
    assert min(scores[name][0] for name in STATED if name != "shape") > 0.98
    assert scores["shape"][0] > 0.9
    assert scores["fill"][0] < 0.6  # what the super-resolution stage has to paint


BASE = Scene(
    "gray",
    (Shape("circle", "red", "large", "striped"), Shape("star", "blue", "small", "solid")),
    "above",
)
TRUE = "a large striped red circle above a small blue star on a gray background"


@pytest.mark.parametrize("size", [16, 64, 256])
@pytest.mark.parametrize(
    ("attribute", "said", "instead"),
    [
        ("background", "gray", "white"),
        ("colour", "red", "green"),
        ("colour", "blue", "red"),
        ("shape", "circle", "square"),
        ("shape", "star", "ring"),
        ("size", "large", "small"),
        ("size", "small", "large"),
        ("fill", "striped", "dotted"),
        ("fill", "striped ", ""),
        ("relation", "above", "below"),
        ("relation", "above", "to the left of"),
    ],
)
def test_a_wrong_word_flips_its_own_verdict_only(
    size: int, attribute: str, said: str, instead: str
) -> None:
    pixels = _down(render.render(BASE, np.random.default_rng(0)), size)
    right = dataclasses.asdict(alignment.judge(pixels, TRUE))
    fill = None if size == 16 else True
    assert right == {**dict.fromkeys(STATED, True), "fill": fill}
    wrong = alignment.judge(pixels, TRUE.replace(said, instead))
    if attribute == "fill" and size == 16:
        assert dataclasses.asdict(wrong) == right
        return
    assert dataclasses.asdict(wrong) == right | {attribute: False}
    assert not wrong.all


def test_count_is_wrong_where_an_object_is_missing_or_too_many() -> None:
    pixels = render.render(BASE, np.random.default_rng(0))
    one = alignment.judge(pixels, "a red striped circle on a gray background")
    assert (one.count, one.colour, one.shape, one.relation) == (False, True, True, None)
    single = Scene("gray", (Shape("circle", "red"),))
    two = alignment.judge(render.render(single, np.random.default_rng(0)), TRUE)
    assert (two.background, two.count, two.colour, two.relation) == (True, False, False, False)
    empty = np.full((64, 64, 3), 128, np.uint8)
    nothing = alignment.judge(empty, "a red circle on a gray background")
    assert (nothing.background, nothing.count, nothing.colour) == (True, False, False)


def test_what_is_not_stated_is_not_judged() -> None:
    pixels = render.render(BASE, np.random.default_rng(0))
    verdict = alignment.judge(pixels, "a striped circle and a star")
    unstated = ("background", "colour", "size", "relation")
    assert [getattr(verdict, name) for name in unstated] == [None] * 4
    assert verdict.all
    assert alignment.judge(pixels, parse("a striped circle and a star")) == verdict


def test_blurred_solid_shapes_stay_solid() -> None:
    verdicts = []
    for shape in scenes.SHAPES:
        scene = Scene("white", (Shape(shape, "blue", "small"),))
        coarse = render.render(scene, np.random.default_rng(0), size=16)
        blurred = _resized(coarse, 64, Image.Resampling.BILINEAR)
        verdicts.append(alignment.judge(blurred, f"a {shape}").fill)
    assert verdicts == [True] * len(scenes.SHAPES)


@pytest.mark.parametrize(
    ("x", "y", "above", "left"),
    [
        (0.5, 0.8, True, False),
        (0.65, 0.8, True, False),
        (0.8, 0.65, False, True),
        (0.5, 0.55, False, False),
    ],
)
def test_a_relation_holds_along_the_longer_axis(
    x: float, y: float, above: bool, left: bool
) -> None:
    first = detector.DetectedShape("circle", "red", "solid", x=0.5, y=0.5, extent=0.3)
    second = detector.DetectedShape("star", "blue", "solid", x=x, y=y, extent=0.3)
    seen = detector.DetectedScene("white", (first, second))
    for relation, right in (("above", above), ("to the left of", left), ("below", False)):
        spec = parse(f"a red circle {relation} a blue star")
        assert alignment.compare(seen, spec, fills=True).relation is right


def test_twins_are_told_apart_by_where_they_stand() -> None:
    twins = Scene("white", (Shape("star", "red", "small"), Shape("star", "blue", "small")), "below")
    pixels = render.render(twins, np.random.default_rng(1))
    assert alignment.judge(pixels, "a red star below a blue star").all
    verdict = alignment.judge(pixels, "a blue star below a red star")
    assert (verdict.colour, verdict.relation) == (True, False)


@pytest.mark.parametrize("background", scenes.BACKGROUNDS)
@pytest.mark.parametrize("fill", scenes.FILLS)
def test_every_colour_is_named_on_every_ground(background: str, fill: str) -> None:
    for colour in scenes.COLOURS:
        if colour != background:
            scene = Scene(background, (Shape("ring", colour, "small", fill),))
            pixels = render.render(scene, np.random.default_rng(0), size=64)
            (blob,) = detector.detect(pixels).blobs
            assert (blob.shape, blob.colour, blob.fill) == ("ring", colour, fill)


def test_colours_and_outlines_without_a_name_are_wrong() -> None:
    rng = np.random.default_rng(0)
    junk = np.full((64, 64, 3), 250, np.uint8)
    junk[8:20, 8:56] = junk[20:56, 8:14] = (220, 30, 35)  # an L
    (blob,) = detector.detect(junk).blobs
    assert (blob.shape, blob.colour) == (None, "red")
    cyan = np.full((64, 64, 3), (0, 255, 255), np.uint8)
    assert detector.detect(cyan).background is None
    noise = np.uint8(rng.integers(0, 256, size=(64, 64, 3)))
    assert not alignment.judge(noise, "a red circle on a white background").all


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_extent_and_place_are_measured(shape: str, size: int) -> None:
    for seed, extent in enumerate(("small", "large")):
        scene = Scene("white", (Shape(shape, "blue", extent),))
        pixels = render.render(scene, np.random.default_rng(seed), size=size)
        (place,) = render.layout(scene, np.random.default_rng(seed))
        (blob,) = detector.detect(pixels).blobs
        found = (blob.x, blob.y, blob.extent)
        np.testing.assert_allclose(found, (place.x, place.y, place.extent), atol=0.004)


@pytest.mark.parametrize(
    ("rgb", "expected"),  # CIELAB of the sRGB primaries and greys, as tabulated under D65
    [
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
    ],
)
def test_lab_has_its_tabulated_values(rgb: tuple, expected: tuple) -> None:
    np.testing.assert_allclose(detector.lab(np.array(rgb, float)), expected, atol=0.1)


@pytest.mark.parametrize("shape", [(8, 8, 3), (64, 32, 3)])
def test_a_picture_of_another_form_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square image of at least 16 pixels"):
        alignment.judge(np.zeros(shape, np.uint8), "a red circle")


def test_a_caption_outside_the_grammar_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown word 'dog'"):
        alignment.judge(np.zeros((16, 16, 3), np.uint8), "a red dog")
