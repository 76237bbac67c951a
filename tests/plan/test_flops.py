"""FLOPs against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from imagen_jax.parallel import flops


def _shape(*sides: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def _conv(x, kernel, stride: int = 1, groups: int = 1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def test_products_and_convolutions() -> None:
    assert flops.count_flops(jnp.matmul, _shape(3, 5), _shape(5, 7)) == 2 * 3 * 5 * 7
    batched = flops.count_flops(
        lambda a, b: jnp.einsum("bqhk,bnhk->bhqn", a, b), _shape(2, 4, 3, 8), _shape(2, 6, 3, 8)
    )
    assert batched == 2 * 2 * 3 * 4 * 6 * 8
    assert (
        flops.count_flops(_conv, _shape(2, 8, 8, 5), _shape(3, 3, 5, 7))
        == 2 * 2 * 8 * 8 * 7 * 3 * 3 * 5
    )
    halved = flops.count_flops(
        lambda x, k: _conv(x, k, stride=2), _shape(2, 8, 8, 5), _shape(3, 3, 5, 7)
    )
    assert halved == 2 * 2 * 4 * 4 * 7 * 3 * 3 * 5
    grouped = flops.count_flops(
        lambda x, k: _conv(x, k, groups=2), _shape(1, 8, 8, 4), _shape(3, 3, 2, 6)
    )
    assert grouped == 2 * 8 * 8 * 6 * 3 * 3 * 2


def test_everything_else_is_free_and_nesting_is_seen_through() -> None:
    product = 2 * 4**3
    square = _shape(4, 4)
    assert flops.count_flops(lambda x: jnp.sin(x) + x, square) == 0
    assert (
        flops.count_flops(jax.jit(lambda x: jax.checkpoint(lambda y: y @ y)(x)), square) == product
    )
    assert flops.count_flops(lambda x: jax.vmap(lambda y: y @ y)(x), _shape(5, 4, 4)) == 5 * product


def test_a_scan_counts_every_turn_and_a_choice_its_dearer_branch() -> None:
    product = 2 * 4**3

    def looped(x):
        return jax.lax.scan(lambda y, _: (y @ y, None), x, length=6)[0]

    assert flops.count_flops(looped, _shape(4, 4)) == 6 * product

    def chosen(x):
        return jax.lax.cond(True, lambda: x @ x @ x, lambda: x)

    assert flops.count_flops(chosen, _shape(4, 4)) in (
        0,
        2 * product,
    )  # folded, or the dearer branch


@pytest.mark.parametrize("remat", [pytest.param("none", marks=pytest.mark.slow), "block"])
def test_the_backward_pass_is_twice_the_forward_pass(toy_network, remat: str) -> None:
    """Of a network without recomputation; with it, once more the forward pass."""
    forward, loss, params = toy_network(remat)
    ahead = flops.count_flops(forward, params)
    both = flops.count_flops(jax.grad(loss), params)
    expected = {"none": 3.0, "block": 4.0}[remat]
    assert both / ahead == pytest.approx(expected, rel=0.12)
