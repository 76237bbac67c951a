"""Moment matching from a teacher in closed form: few steps of the student sample the mixture."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussian_mixture import CENTRES, denoise_mixture, draw_mixture

from imagen_jax import config, rng
from imagen_jax.diffusion import samplers, schedules
from imagen_jax.diffusion.distillation import moments
from imagen_jax.types import Denoise

SCHEDULE = config.NoiseSchedule()
STEPS, UPDATES, BATCH = 8, 6000, 512
POINTS, PERMUTATIONS, LEVEL = 2000, 199, 0.01  # of the two-sample test
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adam(optax.cosine_decay_schedule(1e-3, UPDATES), b1=0.0, b2=0.99),
)


class Correction(nn.Module):
    """What is added to the teacher's image; zero at the start."""

    @nn.compact
    def __call__(self, z: jax.Array, logsnr: jax.Array) -> jax.Array:
        level = logsnr[:, None] / 10
        waves = [level, jnp.sin(3 * level), jnp.cos(3 * level)]
        features = jnp.concatenate([z[:, 0, 0], *waves], axis=-1)
        for _ in range(3):
            features = nn.silu(nn.Dense(128)(features))
        found = nn.Dense(2, kernel_init=nn.initializers.zeros)(features)
        return found[:, None, None, :]


def network(params: dict) -> Denoise:
    """The teacher with a correction."""
    return lambda z, logsnr: denoise_mixture(z, logsnr) + Correction().apply(params, z, logsnr)


@jax.jit
def train(start: dict) -> dict:
    """The generator after alternating updates of the auxiliary network and of itself."""

    def update(params: dict, state: tuple, loss) -> tuple:
        changes, state = OPTIMIZER.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, changes), state

    def step(carry: tuple, key: jax.Array) -> tuple:
        generator, auxiliary, of_generator, of_auxiliary = carry
        x0 = draw_mixture(rng.fold(key, "data"), BATCH)
        draw = functools.partial(moments.generate, x0=x0, schedule=SCHEDULE, steps=STEPS)

        def loss_of_auxiliary(params: dict) -> jax.Array:
            generated = draw(network(generator), key=rng.fold(key, "auxiliary"))
            return moments.auxiliary_loss(
                network(params), denoise_mixture, generated
            ).per_example.mean()

        auxiliary, of_auxiliary = update(auxiliary, of_auxiliary, loss_of_auxiliary)

        def loss_of_generator(params: dict) -> jax.Array:
            generated = draw(network(params), key=rng.fold(key, "generator"))
            return moments.generator_loss(
                network(auxiliary), denoise_mixture, generated
            ).per_example.mean()

        generator, of_generator = update(generator, of_generator, loss_of_generator)
        return (generator, auxiliary, of_generator, of_auxiliary), None

    states = OPTIMIZER.init(start), OPTIMIZER.init(start)
    keys = jax.random.split(rng.root(1), UPDATES)
    return jax.lax.scan(step, (start, start, *states), keys)[0][0]


@functools.partial(jax.jit, static_argnums=1)
def sample(params: dict, count: int) -> jax.Array:
    """Points, (count, 2), of `STEPS` ancestral steps."""
    key = rng.root(2)
    z = jax.random.normal(rng.fold(key, "start"), (count, 1, 1, 2))
    for number in range(STEPS, 0, -1):
        t, s = (
            schedules.logsnr(jnp.full(count, n / STEPS), schedule=SCHEDULE)
            for n in (number, number - 1)
        )
        x0 = network(params)(z, t)
        mean, std = samplers.posterior_mean_std(z, x0, t, s, stochasticity=jnp.float32(0.0))
        z = mean + std * jax.random.normal(jax.random.fold_in(key, number), z.shape)
    return x0[:, 0, 0]


@jax.jit
def p_value(x: jax.Array, y: jax.Array) -> jax.Array:
    """Of the energy distance of two samples of one size, by permutations (Székely and Rizzo)."""
    pool, count = jnp.concatenate([x, y]), len(x)
    gaps = jnp.sqrt(jnp.sum((pool[:, None] - pool[None]) ** 2, axis=-1) + 1e-12)

    def distance(order: jax.Array) -> jax.Array:
        first = jnp.zeros(len(pool)).at[order[:count]].set(1.0)
        sign = (2 * first - 1) / count
        return -(sign @ gaps @ sign)

    orders = jax.vmap(lambda key: jax.random.permutation(key, len(pool)))(
        jax.random.split(rng.root(3), PERMUTATIONS)
    )
    others = jax.lax.map(distance, orders)
    larger = jnp.sum(others >= distance(jnp.arange(len(pool))))
    return (larger + 1) / (PERMUTATIONS + 1)


@pytest.mark.slow
def test_a_few_steps_of_the_student_sample_the_mixture() -> None:
    """A two-sample test at 1 % takes them for the data, and those of the teacher's denoiser not.

    Each mode has its share, and the second moment is nearer than the teacher's.
    """
    start = Correction().init(rng.root(0), jnp.zeros((1, 1, 1, 2)), jnp.zeros(1))
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam counts steps in integers
        trained = train(start)
    data = draw_mixture(rng.root(4), POINTS)[:, 0, 0]
    assert float(p_value(sample(start, POINTS), data)) <= LEVEL
    assert float(p_value(sample(trained, POINTS), data)) > LEVEL
    many, real = sample(trained, 40_000), draw_mixture(rng.root(5), 40_000)[:, 0, 0]
    nearest = np.argmin(((many[:, None] - CENTRES[None]) ** 2).sum(axis=-1), axis=1)
    np.testing.assert_allclose(np.bincount(nearest) / len(many), 1 / 3, atol=0.02)
    np.testing.assert_allclose(many.mean(axis=0), real.mean(axis=0), atol=0.02)
    second, wanted = float((many**2).mean()), float((real**2).mean())
    of_teacher = float((sample(start, 40_000) ** 2).mean())
    assert abs(second - wanted) < 0.75 * abs(of_teacher - wanted)
