"""Options of sampling that a stage does not read, as its other options are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imagen_jax.config.stage import Stage


def why_unread(stage: Stage, option: str, value: Any) -> str:
    """Explain why `stage` does not use a value of `option`; "" where it does.

    `option` is a field of `Sampler`, or "aug_level". A value that switches guidance's extras off is
    always of use.
    """
    unread = _UNREAD.get(option)
    if unread is None or value is None or (option == "guidance_rescale" and value == 0.0):
        return ""
    return unread(stage)


def _unless(found: bool, sentence: str) -> str:
    return "" if found else sentence


def _guided(stage: Stage) -> str:
    return _unless(
        stage.sampler.guidance_weight != 1.0, "guidance_weight=1 of it does not guide at all"
    )


def _karras(stage: Stage) -> str:
    levels = stage.sampler.levels
    return _unless(levels == "karras", f"spacing {levels!r} of it has no such levels, karras has")


def _unlisted(stage: Stage) -> str:
    return _unless(not stage.sampler.timesteps, "timesteps of it say which steps are made")


_UNREAD: Mapping[str, Callable[[Stage], str]] = {
    "stochasticity": lambda stage: _unless(
        stage.sampler.kind == "ancestral",
        f"sampler {stage.sampler.kind!r} of it adds no noise, ancestral does",
    ),
    "percentile": lambda stage: _unless(
        stage.sampler.threshold == "dynamic",
        f"threshold {stage.sampler.threshold!r} of it has none, dynamic has",
    ),
    "steps": _unlisted,
    "spacing": _unlisted,
    "threshold_max": lambda stage: _unless(
        stage.sampler.threshold == "dynamic",
        f"threshold {stage.sampler.threshold!r} of it has none, dynamic has",
    ),
    "final_noise": lambda stage: _unless(
        stage.sampler.ends_noisy and stage.diffusion.betas is not None,
        "only the ancestral sampler's discrete time steps end with noise",
    ),
    "guidance_interval": _guided,
    "guidance_rescale": _guided,
    "edm_rho": _karras,
    "edm_sigma_min": _karras,
    "edm_sigma_max": _karras,
    "aug_level": lambda stage: _unless(
        stage.is_super_resolution, "it is no super-resolution stage, whose input has noise"
    ),
}
