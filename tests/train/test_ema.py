"""The moving average of the parameters against its definition."""

import jax.numpy as jnp
import pytest

from imagen_jax.train.ema import update_ema


@pytest.mark.parametrize("decay", [0.99, 0.999, 0.9999])
@pytest.mark.parametrize("steps", [20, 60, 300])
def test_a_short_runs_average_has_left_its_start_whatever_the_decay(
    decay: float, steps: int
) -> None:
    """Also with --init-from: with 1 at the start and 0 afterwards it is the start's share.

    Its mean age is that of an average over the ramp of step numbers, n - average.
    """
    start, ramp = {"w": jnp.float32(1.0)}, {"w": jnp.float32(0.0)}
    for n in range(1, steps + 1):
        start = update_ema(start, {"w": jnp.float32(0.0)}, jnp.int32(n), decay=decay)
        ramp = update_ema(ramp, {"w": jnp.float32(n)}, jnp.int32(n), decay=decay)
    assert float(start["w"]) < 1e-5
    assert steps - float(ramp["w"]) <= 0.1 * steps + 0.2


def test_average_follows_its_recursion() -> None:
    ema, expected = {"w": jnp.float32(1.0)}, 1.0
    for n in range(1, 200):
        ema = update_ema(ema, {"w": jnp.float32(n)}, jnp.int32(n), decay=0.9)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert float(ema["w"]) == pytest.approx(expected, rel=1e-5)


def test_an_average_that_starts_later_is_the_weights_until_then() -> None:
    late, plain = {"w": jnp.float32(1.0)}, {"w": jnp.float32(5.0)}
    for n in range(1, 30):
        late = update_ema(late, {"w": jnp.float32(n)}, jnp.int32(n), decay=0.9, start=5)
        if n <= 5:
            assert float(late["w"]) == n
        else:  # the recursion of an average that begins with the weights of step 5
            plain = update_ema(plain, {"w": jnp.float32(n)}, jnp.int32(n - 5), decay=0.9)
            assert float(late["w"]) == pytest.approx(float(plain["w"]))
