"""The Fréchet distance: closed forms for Gaussians, and what it must tell apart in pictures."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy import linalg

from imagen_jax.data.images import transforms
from imagen_jax.data.synthetic.shapes import dataset
from imagen_jax.evaluate import frechet

RNG = np.random.default_rng(0)


def _gaussian(width: int) -> frechet.Gaussian:
    root = RNG.standard_normal((width, width))
    return frechet.Gaussian(RNG.standard_normal(width), root @ root.T)


def test_distance_is_the_closed_form_of_commuting_covariances() -> None:
    first, second = np.array([4.0, 9.0, 0.0]), np.array([1.0, 16.0, 25.0])
    turn = np.linalg.qr(RNG.standard_normal((3, 3)))[0]  # the same axes for both, none of ours
    a = frechet.Gaussian(np.array([1.0, 2.0, 3.0]), turn @ np.diag(first) @ turn.T)
    b = frechet.Gaussian(np.array([1.0, 0.0, 0.0]), turn @ np.diag(second) @ turn.T)
    assert frechet.frechet_distance(a, b) == pytest.approx(13 + (2 - 1) ** 2 + (3 - 4) ** 2 + 5**2)


def test_distance_is_that_of_the_matrix_square_root() -> None:
    a, b = _gaussian(12), _gaussian(12)
    root = linalg.sqrtm(a.covariance @ b.covariance).real
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet.frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_distance_to_itself_is_zero_even_where_singular() -> None:
    few = frechet.fit_gaussian(RNG.standard_normal((5, 64)))  # rank 4
    assert 0 <= frechet.frechet_distance(few, few) < 1e-9
    moved = frechet.Gaussian(few.mean + 0.5, few.covariance)
    assert frechet.frechet_distance(few, moved) == pytest.approx(16)


def test_fit_is_unbiased_and_needs_two_pictures() -> None:
    rows = RNG.standard_normal((7, 3))
    centred = rows - rows.mean(axis=0)
    found = frechet.fit_gaussian(rows)
    np.testing.assert_allclose(found.covariance, centred.T @ centred / 6)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        frechet.fit_gaussian(rows[:1])


def _plain(side: int, rgb: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(np.uint8(rgb), (1, side, side, 3))


def test_a_plain_picture_is_its_colour_and_has_no_edges() -> None:
    numbers = frechet.describe_distribution(_plain(16, (255, 0, 0)))[0]
    assert numbers.shape == (64,)
    red = np.array([53.24, 80.09, 67.20]) / 30  # CIELAB of sRGB red under D65
    np.testing.assert_allclose(numbers[:48].reshape(16, 3), np.tile(red, (16, 1)), atol=0.01)
    np.testing.assert_allclose(numbers[48:], 0, atol=1e-12)


def test_cells_are_where_their_colours_are() -> None:
    picture = np.zeros((1, 16, 16, 3), np.uint8)
    picture[0, 4:8, 12:] = 255
    lightness = frechet.describe_distribution(picture)[0, :48].reshape(4, 4, 3)[..., 0]
    expected = np.zeros((4, 4))
    expected[1, 3] = 100 / 30
    np.testing.assert_allclose(lightness, expected, atol=1e-3)


def _ramp(angle: float, side: int = 32) -> np.ndarray:
    """A soft edge whose gradient points along `angle`, in radians from right to down."""
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    grey = 127.5 + 100 * np.tanh((x * np.cos(angle) + y * np.sin(angle)) / 3)
    return np.repeat(np.uint8(grey)[None, ..., None], 3, axis=-1)


@pytest.mark.parametrize("orientation", range(8))
def test_an_edge_speaks_in_its_own_orientation(orientation: int) -> None:
    angle = orientation * np.pi / 8
    edges = frechet.describe_distribution(_ramp(angle))[0, 48:].reshape(2, 8)
    assert edges.argmax(axis=1).tolist() == [orientation] * 2
    opposite = frechet.describe_distribution(_ramp(angle + np.pi))[0, 48:].reshape(2, 8)
    np.testing.assert_allclose(opposite, edges, rtol=0.1, atol=0.05)
    assert (np.delete(edges, orientation, axis=1).max(axis=1) < 0.35 * edges.max(axis=1)).all()


def test_energy_is_shared_by_the_two_nearest_orientations() -> None:
    """Halfway between two orientations both have half the energy, and the others none."""
    flat = np.zeros((1, 16, 16, 3))
    y, x = np.mgrid[:16, :16]
    angle = 2.5 * np.pi / 8
    flat[0, ..., 0] = x * np.cos(angle) + y * np.sin(angle)  # a ramp of slope 1 in one channel
    energy = frechet._edges(flat)[0] ** 2
    expected = np.zeros(8)
    expected[2:4] = 14 * 14 / 16 / 2
    np.testing.assert_allclose(energy, expected, atol=1e-9)


def test_a_crisp_edge_counts_the_same_at_every_size() -> None:
    def edge(side: int) -> float:
        picture = np.zeros((1, side, side, 3), np.uint8)
        picture[:, :, side // 2 :] = 200
        return float(frechet.describe_distribution(picture)[0, 48])

    assert edge(64) == pytest.approx(edge(128), rel=0.02)
    assert edge(64) > 1


@pytest.mark.parametrize("side", [12, 20])
def test_pictures_that_do_not_divide_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"images of {side}x{side}"):
        frechet.describe_distribution(_plain(side, (0, 0, 0)))
    with pytest.raises(ValueError, match="images of 8x16"):
        frechet.describe_distribution(np.zeros((2, 8, 16, 3), np.uint8))


COUNT = 200


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    pictures = dataset.eval_set_of("full", "validation", count=3 * COUNT, seed=3, size=64)[1]
    return transforms.area_downsample(pictures, 2)


@pytest.fixture(scope="module")
def reference(real) -> frechet.ReferenceSet:
    return frechet.load_reference(real[COUNT:], real[:COUNT])


def _each(pictures: np.ndarray, change) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(p))) for p in pictures])


def _lost(pictures: np.ndarray, share: float) -> np.ndarray:
    """Some pictures without their objects: the ground alone, as in their corner."""
    empty = np.broadcast_to(pictures[:, :1, :1], pictures.shape)
    lost = np.arange(len(pictures)) < share * len(pictures)
    return np.where(lost[:, None, None, None], empty, pictures)


FLAWS = {  # weak and strong
    "dull": [lambda p, s=s: _each(p, lambda i: ImageEnhance.Color(i).enhance(s)) for s in (0.7, 0)],
    "garish": [
        lambda p, s=s: _each(p, lambda i: ImageEnhance.Color(i).enhance(s)) for s in (1.5, 3)
    ],
    "blurred": [
        lambda p, s=s: _each(p, lambda i: i.filter(ImageFilter.GaussianBlur(s))) for s in (0.8, 2)
    ],
    "noisy": [
        lambda p, s=s: np.uint8(np.clip(p + np.random.default_rng(0).normal(0, s, p.shape), 0, 255))
        for s in (16, 64)
    ],
    "objects lost": [lambda p, s=s: _lost(p, s) for s in (0.25, 0.8)],
    "collapsed": [lambda p, n=n: np.concatenate([p[:n]] * (len(p) // n)) for n in (20, 2)],
    "other colours": [
        lambda p: np.where(np.arange(len(p))[:, None, None, None] % 2, p, p[..., ::-1]),
        lambda p: p[..., ::-1],
    ],
    "misplaced": [lambda p, s=s: np.roll(p, s, axis=2) for s in (8, 16)],
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_flawed_pictures_are_farther_than_real_ones(real, reference, flaw: str) -> None:
    weak, strong = (reference.distance(change(real[:COUNT])) for change in FLAWS[flaw])
    assert 1.4 * reference.floor < weak
    assert 1.5 * weak < strong


def test_real_pictures_are_near_each_other(real, reference) -> None:
    """Small beside what the reference itself spreads, and smaller the more pictures there are."""
    assert reference.distance(real[:COUNT]) == reference.floor
    assert reference.floor < 0.06 * np.trace(reference.gaussian.covariance)
    assert reference.floor < 0.8 * reference.distance(real[: COUNT // 4])
