"""FID, CMMD, precision and recall against other packages' numbers, closed forms and each other."""

from pathlib import Path

import metric_oracles
import numpy as np
import pytest

from imagen_jax.metrics.cmmd import cmmd
from imagen_jax.metrics.frechet import Gaussian, Moments, fit_gaussian, frechet_distance
from imagen_jax.metrics.precision_recall import precision_recall

REFERENCES = np.load(Path(__file__).parents[1] / "fixtures" / "metrics" / "references.npz")
FIRST, SECOND = metric_oracles.features(0), metric_oracles.features(1)


def _moments(features: np.ndarray, part: int) -> Moments:
    found = Moments.empty(features.shape[1])
    for start in range(0, len(features), part):
        found = found.add(features[start : start + part])
    return found


def test_fid_is_the_formula_with_scipys_root() -> None:
    found = frechet_distance(_moments(FIRST, 7).gaussian(), _moments(SECOND, 60).gaussian())
    assert found == pytest.approx(float(REFERENCES["fid"]), rel=1e-9)


def test_cmmd_is_its_codes_formula() -> None:
    assert cmmd(FIRST, SECOND) == pytest.approx(float(REFERENCES["cmmd"]), rel=1e-9)
    assert cmmd(FIRST, FIRST) == pytest.approx(0, abs=1e-12)


def test_cmmd_keeps_its_digits_where_kernels_are_all_near_1() -> None:
    """Embeddings of length 1: kernels are 1 - 0.01 at most, and their differences far less."""
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (FIRST, SECOND))
    exact = metric_oracles.cmmd(first.astype(np.float64), second.astype(np.float64))
    assert cmmd(first, second) == pytest.approx(exact, rel=1e-8)


def test_precision_and_recall_are_torch_fidelitys() -> None:
    found = precision_recall(FIRST, SECOND)
    np.testing.assert_allclose(found, REFERENCES["precision_recall"], atol=1e-12)
    assert 0 < found.recall < 1


def test_precision_and_recall_of_equal_and_distant_sets() -> None:
    assert precision_recall(FIRST, FIRST) == (1, 1)
    assert precision_recall(FIRST + 100, FIRST) == (0, 0)
    one_mode = np.concatenate([SECOND[:20]] * 3)
    assert precision_recall(one_mode, SECOND).precision == 1
    assert precision_recall(one_mode, SECOND).recall < 1


@pytest.mark.parametrize("part", [1, 2, 17, 1000])
def test_moments_do_not_depend_on_the_parts(part: int) -> None:
    """Features a million away from 0, of which a sum of squares would leave no digit."""
    features = np.random.default_rng(0).standard_normal((300, 5)) + 1e6
    found, wanted = _moments(features, part).gaussian(), fit_gaussian(features)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-13)
    np.testing.assert_allclose(found.covariance, wanted.covariance, rtol=0, atol=1e-8)


def test_fid_of_50_000_against_50_000_is_stable() -> None:
    """Both of one law: what is left is the bias of finite sets, tr(C) d / n and less."""
    rng, spread = np.random.default_rng(0), np.geomspace(1e-6, 10, 16)
    first, second = (
        _moments((rng.standard_normal((50_000, 16)) * spread + 1000).astype(np.float32), 8192)
        for _ in range(2)
    )
    found = frechet_distance(first.gaussian(), second.gaussian())
    assert 0 < found < spread @ spread * 16 / 50_000
    assert frechet_distance(first.gaussian(), first.gaussian()) < 1e-9


def test_fewer_images_than_features_are_no_problem() -> None:
    few = _moments(np.random.default_rng(0).standard_normal((5, 64)), 5).gaussian()
    moved = Gaussian(few.mean + 0.5, few.covariance)
    assert frechet_distance(few, moved) == pytest.approx(16)


def test_sets_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        _moments(FIRST[:1], 1).gaussian()
    with pytest.raises(ValueError, match="more than 3 of each: there are 3 reference images"):
        precision_recall(FIRST, SECOND[:3])
    with pytest.raises(ValueError, match="CMMD needs images: there are 0 and 60"):
        cmmd(FIRST[:0], SECOND)
