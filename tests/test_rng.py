"""Keys are named and per image."""

from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import example, given

from imagen_jax import rng


def test_names_and_indices_give_different_keys() -> None:
    root = rng.root(0)
    keys = [rng.fold(root, "a"), rng.fold(root, "b"), rng.fold(root, "a", 1), rng.root(1)]
    assert len({jax.random.key_data(k).tobytes() for k in keys}) == 4


def test_an_images_noise_does_not_depend_on_its_neighbours() -> None:
    root = rng.root(3)
    eight = rng.normal_each(rng.fold_each(root, "image", jnp.arange(8)), (4, 4, 3))
    alone = rng.normal_each(rng.fold_each(root, "image", jnp.array([5])), (4, 4, 3))
    np.testing.assert_array_equal(eight[5], alone[0])
    assert abs(float(jnp.corrcoef(eight[4].ravel(), eight[5].ravel())[0, 1])) < 0.5


def test_folding_many_keys_equals_folding_each() -> None:
    keys = rng.fold_each(rng.root(0), "image", jnp.arange(3))
    folded = rng.fold_keys(keys, "noise")
    assert folded[1] == rng.fold(keys[1], "noise")


def _key(seed: Any) -> bytes:
    jaxtyping.config.update("jaxtyping_disable", True)  # as users have it
    try:
        return np.asarray(jax.random.key_data(rng.root(seed))).tobytes()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


SEEDS = st.integers(0, 2**32 - 1)


@given(one=SEEDS, other=SEEDS)
@example(one=1, other=2**31 + 1)
@example(one=0, other=2**32 - 1)
def test_two_seeds_give_two_keys(one: int, other: int) -> None:
    assert (_key(one) == _key(other)) == (one == other)
    assert _key(one) == np.asarray(jax.random.key_data(jax.random.key(one))).tobytes()
    for same in (np.uint32(one), np.int64(one), np.array(one, np.uint64), jnp.uint32(one)):
        assert _key(same) == _key(one)


@given(
    seed=st.one_of(
        st.integers(max_value=-1),
        st.integers(min_value=2**32),
        st.integers(-(2**63), -1).map(np.int64),
        st.floats(),
        st.floats(width=32).map(np.float32),
        st.booleans(),
        st.booleans().map(np.bool_),
        st.text(),
        st.none(),
        st.lists(st.integers(0, 9)),
        st.lists(st.integers(0, 9)).map(np.array),
    )
)
@example(seed=2**32 + 1)
@example(seed=2**63)
@example(seed=10**20)
def test_what_is_no_seed_is_refused_in_a_sentence(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"^seed=.*: must be a whole number from 0 to 4294967295$"):
        _key(seed)


def test_keys_do_not_depend_on_the_environment() -> None:
    usual = _key(7)
    with jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        assert _key(7) == usual
