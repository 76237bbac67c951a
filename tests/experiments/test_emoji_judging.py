"""What judges emoji in several styles without a network: tones by colour, ranks, neighbours."""

import numpy as np
import pytest
from lib import emoji_features, emoji_neighbours, emoji_ranks, emoji_tones
from lib.emoji_images import Combination, at_side

SKIN = np.array([(250, 220, 190), (230, 190, 150), (190, 140, 110), (150, 100, 70), (90, 60, 50)])
YELLOW = (255, 200, 40)
PALETTES = {"noto": SKIN, "twemoji": SKIN[::-1]}  # in the one the others' light is dark


def person(style: str, tones: tuple[int, ...], seed: int) -> np.ndarray:
    """A patch of skin for each tone, of several shades each, beside hair of any colour."""
    draw = np.random.default_rng(seed)
    image = np.full((32, 32, 3), 255)
    colours = [PALETTES[style][tone] for tone in tones] if style in PALETTES else []
    for number, colour in enumerate(colours or [YELLOW]):
        for shade in range(4):
            place = 4 + 12 * number + 3 * shade
            image[place : place + 3, 4:20] = np.clip(np.array(colour) - 8 * shade, 0, 255)
    image[:, 24:28] = draw.integers(0, 256, 3)
    return image.astype(np.uint8)


def drawn(kinds: list[tuple[str, tuple[int, ...]]], *, each: int, seed: int):
    meant = [Combination("person", tones, style) for style, tones in kinds for _ in range(each)]
    images = np.stack([person(m.style, m.tones, seed + n) for n, m in enumerate(meant)])
    return images, meant


@pytest.fixture(scope="module")
def oracle() -> emoji_tones.ToneOracle:
    kinds = [(style, kind) for style in PALETTES for kind in emoji_tones.KINDS]
    images, meant = drawn([*kinds, ("fluent-contrast", ())], each=8, seed=0)
    return emoji_tones.fit_tones(images, meant)


def test_tones_are_told_by_the_colours_of_their_style(oracle) -> None:
    kinds = [(style, (tone,)) for style in PALETTES for tone in range(5)]
    images, meant = drawn(kinds, each=4, seed=1000)
    styles = [one.style for one in meant]
    assert oracle.judge(images, styles).tolist() == [one.tones[0] for one in meant]
    # The palettes are each other's mirror images: by the other style's colours, so are tones.
    other = [{"noto": "twemoji", "twemoji": "noto"}[style] for style in styles]
    assert oracle.judge(images, other).tolist() == [4 - one.tones[0] for one in meant]


def test_a_style_without_tones_is_not_judged(oracle) -> None:
    images, meant = drawn([("fluent-contrast", ()), ("noto", (1,))], each=2, seed=5)
    assert oracle.judge(images, [one.style for one in meant]).tolist() == [-1, -1, 1, 1]
    assert not oracle.log_odds(images, "fluent-contrast", [(), (1,)]).any()
    toned = emoji_tones.has_one_tone([*meant, Combination("pair", (1, 2), "noto")], oracle)
    assert toned.tolist() == [False, False, True, True, False]


def test_no_tone_one_and_two_are_told_apart(oracle) -> None:
    kinds = [(), (0,), (1,), (3,), (1, 3), (0, 1)]
    images, _ = drawn([("noto", tones) for tones in kinds], each=1, seed=50)
    odds = oracle.log_odds(images, "noto", kinds)
    assert odds.argmax(axis=1).tolist() == list(range(len(kinds)))


SUBJECTS, STYLES = ("owl", "person"), ("noto", "twemoji")
CATALOGUE = emoji_ranks.make_catalogue(
    [
        *(Combination("owl", (), style) for style in STYLES),
        *(Combination("person", kind, style) for style in STYLES for kind in emoji_tones.KINDS),
        Combination("a stranger", (), "noto"),
    ],
    SUBJECTS,
    STYLES,
)


def test_the_catalogue_has_the_combinations_of_known_subjects() -> None:
    assert len(CATALOGUE.combinations) == 2 + 2 * 6
    assert {one.subject for one in CATALOGUE.combinations} == set(SUBJECTS)


def test_tones_compete_with_those_of_their_subject_and_style(oracle) -> None:
    images, meant = drawn([("noto", (2,)), ("noto", ())], each=1, seed=70)
    scores = CATALOGUE.tone_scores(oracle, images, temperature=1.0)
    kinds = [(one.subject, one.style) for one in CATALOGUE.combinations]
    for kind in set(kinds):
        columns = [place for place, own in enumerate(kinds) if own == kind]
        np.testing.assert_allclose(np.exp(scores[:, columns]).sum(axis=1), 1.0)
    for row, one in enumerate(meant):
        assert scores[row, CATALOGUE.combinations.index(one)] > np.log(0.9)


def test_ranks_count_the_more_probable_combinations(oracle) -> None:
    images, meant = drawn([("noto", (2,))], each=1, seed=90)
    tones = CATALOGUE.tone_scores(oracle, images, temperature=1.0)

    def rank(subject: list[float], style: list[float], one: Combination) -> int:
        found = CATALOGUE.rank(np.log([subject]), np.log([style]), tones, [one])
        return int(found[0])

    assert rank([0.1, 0.9], [0.9, 0.1], meant[0]) == 0
    assert rank([0.999, 0.001], [0.9, 0.1], meant[0]) == 2  # both owls are more probable
    assert rank([0.1, 0.9], [0.1, 0.9], meant[0]) > 0  # in the other style
    assert rank([0.1, 0.9], [0.9, 0.1], meant[0]._replace(tones=(4,))) > 0
    with pytest.raises(ValueError, match="not among the combinations"):
        rank([0.5, 0.5], [0.5, 0.5], Combination("person", (0, 1), "noto"))


def test_a_judge_that_cannot_tell_gets_nothing_right() -> None:
    even = np.zeros((1, len(CATALOGUE.combinations)))
    one = [CATALOGUE.combinations[3]]
    rank = CATALOGUE.rank(np.zeros((1, 2)), np.zeros((1, 2)), even, one)
    assert rank.tolist() == [len(CATALOGUE.combinations) - 1]
    assert emoji_ranks.ranks_of(np.array([[1.0, 1.0, 2.0, 0.0]]), [0]).tolist() == [2]


def test_the_temperature_is_that_at_which_real_tones_are_most_probable(oracle) -> None:
    images, meant = drawn([("noto", kind) for kind in emoji_tones.KINDS], each=2, seed=200)
    right = emoji_ranks.choose_temperature(CATALOGUE, oracle, images, meant)
    wrong = emoji_ranks.choose_temperature(CATALOGUE, oracle, images, meant[::-1])
    assert right < wrong == emoji_ranks.TEMPERATURES[-1]


def test_the_closest_training_image_and_how_far_it_is() -> None:
    training = np.random.default_rng(0).integers(10, 240, (9, 32, 32, 3)).astype(np.uint8)
    images = np.stack([training[4], training[7] + 3])
    found = emoji_neighbours.find_neighbours(images, training)
    assert found.rows.tolist() == [4, 7]
    assert found.distances == pytest.approx([0.0, 3.0])
    apart = emoji_neighbours.find_neighbours(training[:2], training, leave_out=[0, 1])
    assert not set(apart.rows.tolist()) & {0, 1}
    assert (apart.distances > 50).all()


def test_larger_images_are_judged_as_area_means() -> None:
    fine = np.zeros((1, 64, 64, 3), np.uint8)
    fine[:, ::2] = 200
    assert at_side(fine).shape == (1, 32, 32, 3)
    assert (at_side(fine) == 100).all()
    with pytest.raises(ValueError, match="does not divide"):
        at_side(fine[:, :16, :16])


def test_statistics_of_a_style_count_pixels_and_edges() -> None:
    image = np.full((2, 32, 32, 3), 255, np.uint8)
    image[1, 8:16, 8:24] = (0, 128, 255)
    found = emoji_features.describe_style(image)
    colours = np.expm1(found[:, : emoji_features.COLOURS**3])
    assert colours.sum(axis=1) == pytest.approx([1024, 1024], rel=1e-4)
    assert colours[1, 0 * 64 + 4 * 8 + 7] == pytest.approx(128, rel=1e-4)
    assert found[:, -3:].tolist() == [[0, 0, 0], [0.5, 0.25, 0.125]]
