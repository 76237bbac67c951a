"""Noise levels of the steps, and the fine texture that every shipped sampler keeps on them."""

import dataclasses
import functools
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax import config, rng
from imagen_jax.diffusion import samplers, sampling_loop, schedules, spacing
from imagen_jax.diffusion.samplers import SamplerParams

# "leading" has time steps, which have tests of their own.
SPACINGS = [kind for kind in get_args(config.Spacing) if kind != "leading"]
CONFIGS = Path(__file__).parents[2] / "configs"
MOST = 300  # steps
SPREAD = 0.01  # a standard deviation of 16,384 values is known to 0.006
TEXTURES = np.array([2.6, 6.4, 12.8, 25.5, 63.8])  # standard deviation in grey levels of 255
FLOORS = {  # shares of it that a config's sampler has to keep; two digits of the closed form
    "imagen/base64_2b": (0.87, 0.93, 0.96, 0.97, 0.98),
    "imagen/base64_1b": (0.87, 0.93, 0.96, 0.97, 0.98),
    "imagen/base64_500m": (0.87, 0.93, 0.96, 0.97, 0.98),
    "imagen/base64_300m": (0.87, 0.93, 0.96, 0.97, 0.98),
    "imagen/sr256": (0.72, 0.84, 0.90, 0.94, 0.97),
    "imagen/sr256_unet": (0.72, 0.84, 0.90, 0.94, 0.97),
    "imagen/sr1024": (0.97, 0.99, 0.99, 0.99, 0.99),
    "emoji/base32": (0.97, 0.99, 0.99, 0.98, 0.99),
    # Flat areas of colour, and networks whose own error is larger than what the grid loses.
    "emoji/sr128": (0.04, 0.11, 0.22, 0.40, 0.67),
    "shapes/base16": (0.15, 0.34, 0.56, 0.75, 0.89),
    "shapes/sr64": (0.04, 0.11, 0.22, 0.41, 0.66),
    "shapes/sr256": (0.02, 0.05, 0.09, 0.19, 0.43),
    "quickstart/base16": (0.15, 0.34, 0.56, 0.75, 0.89),
    "quickstart/sr64": (0.04, 0.11, 0.22, 0.41, 0.66),
    "quickstart/sr256": (0.02, 0.05, 0.09, 0.19, 0.43),
    "tiny/base8": (0.03, 0.09, 0.18, 0.34, 0.58),
    "tiny/sr16": (0.03, 0.08, 0.16, 0.31, 0.53),
    "tiny/sr32": (0.01, 0.03, 0.06, 0.12, 0.30),
}


def levels(steps: int, *, diffusion: config.Diffusion, **options) -> np.ndarray:
    sampler = config.Sampler(steps=steps, **options)
    numbers = jnp.arange(MOST + 1)  # of one shape, which is quick
    found = spacing.logsnr_at(numbers, steps, sampler=sampler, diffusion=diffusion)
    return np.asarray(found)[: steps + 1]


diffusions = st.builds(
    config.Diffusion,
    schedule=st.builds(
        config.NoiseSchedule,
        kind=st.sampled_from(get_args(config.ScheduleKind)),
        shift=st.sampled_from([-4.0, -2.0, 0.0, 1.0]),
        logsnr_min=st.sampled_from([-20.0, -15.0, -5.0]),
        logsnr_max=st.sampled_from([5.0, 12.0, 20.0]),
    ),
)


@given(st.integers(1, MOST), diffusions)
def test_even_levels_rise_in_equal_steps_between_ends_that_are_trained(steps, diffusion) -> None:
    ends = schedules.logsnr(jnp.array([1.0, 0.0]), schedule=diffusion.schedule)
    first, last = np.clip([-10.2, 11.0], *np.asarray(ends))
    found = levels(steps, diffusion=diffusion, spacing="logsnr")
    expected = np.linspace(first, last, steps)
    np.testing.assert_allclose(found[:-1], expected, atol=2e-5)
    assert found[-1] == found[-2]


@given(
    st.sampled_from(SPACINGS), st.integers(1, MOST), st.sampled_from([1.0, 7.0, 100.0]), diffusions
)
def test_no_level_is_outside_of_what_is_trained(asked, steps, rho, diffusion) -> None:
    last, first = np.asarray(schedules.logsnr(jnp.array([0.0, 1.0]), schedule=diffusion.schedule))
    found = levels(steps, diffusion=diffusion, spacing=asked, edm_rho=rho)
    assert (found >= first - 1e-4).all()
    assert (found <= last + 1e-4).all()
    assert (np.diff(found) >= -1e-4).all()  # levels of rho 100 are rounded to 2e-5


@pytest.mark.parametrize("asked", SPACINGS)
def test_levels_rise(asked: config.Spacing) -> None:
    for steps in (1, 2, 32, 256):
        found = levels(
            steps,
            diffusion=config.Diffusion(schedule=config.NoiseSchedule(kind="linear")),
            spacing=asked,
        )
        assert (np.diff(found[:-1]) > 0).all()
        assert found[0] < -8.0
        assert steps == 1 or found[-1] > 10.9


def test_a_rule_has_its_usual_spacing_until_another_is_asked_for() -> None:
    """Heun's steps stay where a config of before the option has them."""
    usual = {k: config.Sampler(kind=k).levels for k in get_args(config.SamplerKind)}
    assert usual == {
        "ancestral": "time",
        "ddim": "time",
        "dpmpp_2m": "time",
        "edm_heun": "karras",
    }
    assert config.Sampler(kind="edm_heun", spacing="time").levels == "time"


def test_another_number_of_steps_compiles_nothing() -> None:
    """The number is an array of the program, for every spacing."""
    for asked in SPACINGS:
        sampler = config.Sampler(kind="dpmpp_2m", spacing=asked)
        keep = program(sampler.kind, sampler.spacing, config.Diffusion())
        for steps in (2, 3):
            keep(
                SamplerParams.from_config(sampler)._replace(
                    steps=np.int32(steps), last=np.int32(steps)
                )
            )
        assert keep._cache_size() == 1


@functools.cache
def program(kind: config.SamplerKind, asked: config.Spacing | None, diffusion: config.Diffusion):
    """A run of all TEXTURES by their exact denoiser; shares of the standard deviation kept."""
    std = jnp.asarray(TEXTURES / 127.5, jnp.float32).reshape(-1, 1, 1, 1)
    sampler = config.Sampler(kind=kind, spacing=asked)
    levels = functools.partial(spacing.logsnr_at, sampler=sampler, diffusion=diffusion)

    def denoise(z: jax.Array, logsnr: jax.Array) -> jax.Array:
        alpha, sigma = schedules.alpha_sigma(logsnr)
        return alpha * std**2 * z / (alpha**2 * std**2 + sigma**2)

    @jax.jit
    def kept(params: SamplerParams) -> jax.Array:
        keys = rng.fold_each(rng.root(1), "test", jnp.arange(len(TEXTURES)))
        blank = jnp.zeros((len(TEXTURES), 128, 128, 1))
        state = sampling_loop.init_state(keys, params, blank, levels=levels)
        rule = samplers.RULES[kind]
        images = sampling_loop.sample(
            denoise, state, params, steps=sampling_loop.Steps(rule, levels)
        ).x0
        return images.std(axis=(1, 2, 3)) / std.ravel()

    return kept


@functools.cache
def shares(sampler: config.Sampler, diffusion: config.Diffusion) -> np.ndarray:
    return np.asarray(
        program(sampler.kind, sampler.spacing, diffusion)(SamplerParams.from_config(sampler))
    )


@pytest.mark.parametrize("name", FLOORS)
def test_a_shipped_sampler_keeps_texture(name: str) -> None:
    """A Gaussian texture with its exact denoiser: what is lost is lost by the grid and the rule."""
    stage = config.load(str(CONFIGS / f"{name}.py"))[0].stage
    sampler = dataclasses.replace(stage.sampler, guidance_weight=1.0, threshold="none")
    schedule = config.Diffusion(schedule=stage.diffusion.schedule)
    found = shares(sampler, schedule)
    assert (found >= np.array(FLOORS[name]) - SPREAD).all(), found
    assert (found < 1.03).all(), found


def test_every_shipped_sampler_has_a_floor() -> None:
    files = {f.relative_to(CONFIGS).with_suffix("") for f in CONFIGS.rglob("*.py")}
    named = {str(f) for f in files if f.name != "__init__"}
    # DeepFloyd's sampler is its own, compared with diffusers.
    assert {name for name in named if not name.startswith("deepfloyd/")} == set(FLOORS)


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        ("ddim", "time", (0.17, 0.39, 0.63, 0.80, 0.91)),
        ("ddim", "logsnr", (0.91, 0.92, 0.92, 0.92, 0.92)),
        ("ddim", "karras", (0.86, 0.88, 0.89, 0.90, 0.91)),
        ("dpmpp_2m", "time", (0.17, 0.40, 0.65, 0.87, 0.99)),
        ("dpmpp_2m", "logsnr", (0.985, 1.00, 1.01, 1.01, 1.01)),
    ],
)
def test_shares_of_32_steps_on_the_linear_schedule(kind, asked, expected) -> None:
    """Recursions in float64, for data whose variance is known."""
    sampler = config.Sampler(kind=kind, spacing=asked, steps=32)
    found = shares(sampler, config.Diffusion(schedule=config.NoiseSchedule(kind="linear")))
    np.testing.assert_allclose(found, expected, atol=0.025)
