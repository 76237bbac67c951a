"""Scenes, captions and pictures: deterministic, read back as written, held-out pairs apart."""

import itertools

import numpy as np
import pytest

from imagen_jax.data.synthetic.shapes import generate, render, scenes
from imagen_jax.data.synthetic.shapes.captions import (
    FRONTED,
    GROUNDS,
    PREFIXES,
    ShapeSpec,
    Spec,
    caption,
    parse,
)
from imagen_jax.data.synthetic.shapes.scenes import HELD_OUT, Grammar, Scene, Shape, sample_scene

DEFAULT = Grammar()


def _scenes(count: int, grammar: Grammar = DEFAULT, seed: int = 0) -> list[Scene]:
    return [sample_scene(np.random.default_rng((seed, i)), grammar=grammar) for i in range(count)]


def _pairs(found: list[Scene]) -> set[tuple[str, str]]:
    return {(shape.shape, shape.colour) for scene in found for shape in scene.shapes}


def test_an_example_depends_on_seed_stream_and_index_alone() -> None:
    series = generate.SceneStream(Grammar(), seed=3, stream=1)
    alone = generate.generate_split(series, 70)
    together = list(generate.generate_splits(series, 72, workers=1))
    assert together[70] == alone
    others = (generate.SceneStream(Grammar(), 4, 1), generate.SceneStream(Grammar(), 3, 2))
    assert all(generate.generate_split(other, 70) != alone for other in others)
    assert len({example.image for example in together}) == len(together)


def test_processes_paint_what_one_paints() -> None:
    series = generate.SceneStream(Grammar(), seed=0, stream=0)
    count = generate.CHUNK + 2
    one, two = (list(generate.generate_splits(series, count, workers=n)) for n in (1, 2))
    assert one == two


def test_held_out_pairs_are_never_trained_on_and_fill_their_own_split() -> None:
    shown = _pairs(_scenes(3000))
    assert not shown & HELD_OUT
    assert len(shown) == len(scenes.SHAPES) * len(scenes.COLOURS) - len(HELD_OUT)
    assert _pairs(_scenes(1000, Grammar(pairs="only"))) == HELD_OUT


def test_the_grammar_keeps_its_shares() -> None:
    found = _scenes(3000, Grammar(single=0.7, patterned=0.2))
    shapes = [shape for scene in found for shape in scene.shapes]
    assert np.mean([len(scene.shapes) == 1 for scene in found]) == pytest.approx(0.7, abs=0.03)
    assert np.mean([shape.fill != "solid" for shape in shapes]) == pytest.approx(0.2, abs=0.03)
    assert all(scene.background not in [s.colour for s in scene.shapes] for scene in found)
    pairs = [scene.shapes for scene in found if len(scene.shapes) == 2]
    assert all(first.colour != second.colour for first, second in pairs)


@pytest.mark.parametrize("sizes", [("large",), ("small",), scenes.SIZES])
def test_the_grammar_keeps_to_its_sizes(sizes: tuple[str, ...]) -> None:
    found = _scenes(200, Grammar(sizes=sizes))
    assert {shape.size for scene in found for shape in scene.shapes} == set(sizes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"single": 1.5}, "single is a share in .* not 1.5"),
        ({"shapes": ("blob",)}, "shape 'blob' is unknown"),
        ({"colours": ("mauve",)}, "colour 'mauve' is unknown"),
        ({"backgrounds": ("wood",)}, "background 'wood' is unknown"),
        ({"sizes": ("huge",)}, "size 'huge' is unknown"),
        ({"backgrounds": ()}, "backgrounds is empty"),
        ({"colours": ("red", "white")}, "fewer than two colours are left on a white"),
    ],
)
def test_a_grammar_that_cannot_be_drawn_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar(**wrong)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("white", (), None), "one or two shapes, not 0"),
        (("white", (Shape("circle", "white"),), None), "white shape is invisible on white"),
        (("black", (Shape("circle", "red"), Shape("star", "blue")), None), "need a relation"),
        (("black", (Shape("circle", "red"),), "above"), "need a relation"),
    ],
)
def test_an_impossible_scene_is_refused(fields: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scene(*fields)


def test_a_scene_survives_json() -> None:
    for scene in _scenes(50):
        assert scenes.from_json(scenes.to_json(scene)) == scene


def test_the_plain_captions_are_worded_exactly() -> None:
    one = Scene("white", (Shape("circle", "red", "large"),))
    two = Scene("white", (Shape("circle", "red"), Shape("square", "blue", "small")), "above")
    dotted = Scene("gray", (Shape("star", "orange", "small", "dotted"),))
    rng = np.random.default_rng(0)
    assert caption(one, rng, plain=1.0) == "a large red circle on a white background"
    expected = "a red circle above a blue square on a white background"
    assert caption(two, rng, plain=1.0) == expected
    assert caption(dotted, rng, plain=1.0) == "a small dotted orange star on a gray background"


def _agrees(spec: Spec, scene: Scene) -> bool:
    """Whether the caption states nothing but the truth, the objects in either order."""
    turned = {"above": "below", "to the left of": "to the right of"}
    turned |= {value: key for key, value in turned.items()}
    orders = [(scene.shapes, scene.relation)]
    if scene.relation:
        orders.append((scene.shapes[::-1], turned[scene.relation]))
    return spec.background in (None, scene.background) and any(
        spec.relation in (None, relation)
        and all(
            said in (None, getattr(shape, trait))
            for stated, shape in zip(spec.shapes, shapes, strict=True)
            for trait, said in vars(stated).items()
        )
        for shapes, relation in orders
    )


def test_captions_are_read_back_as_the_truth_in_every_phrasing() -> None:
    rng = np.random.default_rng(1)
    found = [(scene, caption(scene, rng, plain=0.2)) for scene in _scenes(2000)]
    for scene, words in found:
        spec = parse(words)
        assert _agrees(spec, scene), words
        assert [s.colour for s in spec.shapes].count(None) == 0
    spoken = " | ".join(words for _, words in found)
    fragments = (*PREFIXES, *(g.split("{}")[0] for g in GROUNDS), FRONTED.split("{}")[1])
    for fragment in (*fragments, " and ", "grey", "big", "little", *scenes.RELATIONS):
        assert fragment in spoken


@pytest.mark.parametrize(("prefix", "ground"), list(itertools.product(PREFIXES, GROUNDS)))
def test_every_prefix_and_ground_parses(prefix: str, ground: str) -> None:
    spec = parse(f"{prefix}a small striped red circle{ground.format('grey')}")
    expected = ShapeSpec("circle", "red", "small", "striped")
    assert spec == Spec("gray" if ground else None, (expected,))


def test_case_and_full_stop_are_free_and_silence_is_none() -> None:
    spec = parse("An image of  a Circle to the left of a big star.")
    shapes = (ShapeSpec("circle"), ShapeSpec("star", size="large"))
    assert spec == Spec(None, shapes, "to the left of")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a red dog on a white background", "unknown word 'dog'"),
        ("a crimson circle", "unknown word 'crimson'"),
        ("a red circle on a wooden background", "unknown word 'wooden'"),
        ("a red blue circle", "second colour 'blue'"),
        ("circle", "expected 'a ... shape' and found 'circle'"),
        ("", "expected 'a ... shape' and found ''"),
    ],
)
def test_a_caption_outside_the_grammar_names_the_word(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(words)


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_a_solid_shape_is_painted_where_the_layout_says(shape: str) -> None:
    scene = Scene("black", (Shape(shape, "red", "large"),))
    pixels = render.render(scene, np.random.default_rng(0))
    (place,) = render.layout(scene, np.random.default_rng(0))
    rows, columns = np.nonzero(np.any(pixels != render.RGB["black"], axis=-1))
    assert {tuple(pixels[0, 0].tolist())} == {render.RGB["black"]}
    assert tuple(np.median(pixels[rows, columns], axis=0)) == render.RGB["red"]
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    assert extent == pytest.approx(place.extent * 256, abs=2.1)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(place.x * 256, abs=1.1)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(place.y * 256, abs=1.1)


@pytest.mark.parametrize(
    ("shape", "area"),  # in squares of the extent; closed forms of the outlines
    [
        ("circle", np.pi / 4),
        ("square", 1.0),
        ("triangle", 0.45),
        ("ring", np.pi / 4 * (1 - 0.55**2)),
        ("cross", 2 * 0.36 - 0.36**2),
        ("diamond", 0.4),
    ],
)
def test_a_shape_is_antialiased_and_has_its_area(shape: str, area: float) -> None:
    scene = Scene("black", (Shape(shape, "white", "large"),))
    pixels = render.render(scene, np.random.default_rng(0)).astype(float)
    (place,) = render.layout(scene, np.random.default_rng(0))
    coverage = (pixels[..., 0] - 12) / (250 - 12)
    assert coverage.sum() == pytest.approx(area * (place.extent * 256) ** 2, rel=0.015)
    assert np.any((coverage > 0.05) & (coverage < 0.95))


@pytest.mark.parametrize("relation", scenes.RELATIONS)
def test_two_objects_stand_apart_along_their_relation(relation: str) -> None:
    shapes = (Shape("circle", "red", "large"), Shape("star", "blue", "large"))
    for seed in range(100):
        rng = np.random.default_rng(seed)
        first, second = render.layout(Scene("white", shapes, relation), rng)
        step = {"above": (0, 1), "below": (0, -1), "to the left of": (1, 0)}.get(relation, (-1, 0))
        along = (second.x - first.x) * step[0] + (second.y - first.y) * step[1]
        assert along >= (first.extent + second.extent) / 2 + render.GAP - 1e-9
        for place in (first, second):
            low, high = np.array([place.x, place.y]) + np.array([[-1], [1]]) * place.extent / 2
            assert low.min() > 0
            assert high.max() < 1


def test_fills_vary_as_named() -> None:
    def inside(fill: str) -> np.ndarray:
        scene = Scene("white", (Shape("square", "red", "large", fill),))
        pixels = render.render(scene, np.random.default_rng(0)).astype(float)
        (place,) = render.layout(scene, np.random.default_rng(0))
        x, y, half = (int(v * 256) for v in (place.x, place.y, place.extent * 0.4))
        return pixels[y - half : y + half, x - half : x + half, 1]

    solid, striped, dotted = (inside(fill) for fill in scenes.FILLS)
    assert solid.std() == 0
    assert striped.std() > 40
    assert striped.std(axis=1).max() == 0
    assert dotted.std() > 40
    assert dotted.std(axis=1).max() > 30
    assert dotted.std(axis=0).max() > 30
    crossings = np.count_nonzero(np.diff(striped[:, 0] > striped.mean()))
    assert crossings == pytest.approx(2 * len(striped) / 16, abs=1)  # a period is 1/16 of the side


def test_smaller_pictures_are_the_area_average() -> None:
    scene = _scenes(1)[0]
    fine = render.render(scene, np.random.default_rng(0)).astype(float)
    coarse = render.render(scene, np.random.default_rng(0), size=16)
    mean = fine.reshape(16, 16, 16, 16, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse, mean, atol=0.51)
