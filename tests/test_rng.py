"""Keys are named and per image."""

import jax
import jax.numpy as jnp
import numpy as np

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
