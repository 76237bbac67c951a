"""diffusers' `scheduler/scheduler_config.json` to the diffusion process and its sampler."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagen_jax import config, discrete_schedule
from imagen_jax.config.sentences import shorten
from imagen_jax.io import json_reader
from imagen_jax.pretrained.deepfloyd.config_fields import choice, flag, positive_number, unfit

CONFIG = "scheduler_config.json"
# Keys that change the process, with the value that counts where a file lacks them.
DEFAULTS: dict[str, Any] = {
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "variance_type": "fixed_small",
}
BETAS: dict[str, config.Betas] = {"squaredcos_cap_v2": "cosine", "linear": "linear"}
PREDICTS: dict[str, config.Predicts] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
# Share of the way from the smallest to the largest variance; a learned one has its own.
STOCHASTICITY = {
    "learned_range": 0.0,
    "fixed_small": 0.0,
    "fixed_small_log": 0.0,
    "fixed_large": 1.0,
    "fixed_large_log": 1.0,
}
ONLY = {
    "beta_start": discrete_schedule.LINEAR[0],
    "beta_end": discrete_schedule.LINEAR[1],
    "clip_sample_range": 1.0,
    "num_train_timesteps": discrete_schedule.STEPS,
    "rescale_betas_zero_snr": False,
    "steps_offset": 0,
    "timestep_spacing": "leading",
    "trained_betas": None,
}


@dataclass(frozen=True, kw_only=True)
class FoundScheduler:
    """A scheduler, as its file describes it."""

    betas: config.Betas
    predicts: config.Predicts
    learned_variance: bool
    stochasticity: float
    threshold: config.Threshold
    percentile: float
    threshold_max: float | None


def read_scheduler_config(folder: Path) -> FoundScheduler:
    """Read the config of a folder `scheduler`.

    Errors: FileNotFoundError; ValueError that names the file and the key.
    """
    file = folder / CONFIG
    given = json_reader.read_object(file, remedy="download it again")
    try:
        return parse_scheduler_config(given)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def parse_scheduler_config(given: Mapping[str, Any]) -> FoundScheduler:
    """Turn the fields of a config into a scheduler. Errors: ValueError that names the key."""
    found = {key: given.get(key, default) for key, default in DEFAULTS.items()}
    for key, value in given.items():
        if key not in DEFAULTS and not key.startswith("_") and value not in (None, False):
            raise unfit(shorten(key), value, ["no such key"])
    for key, wanted in ONLY.items():
        if found[key] != wanted or isinstance(found[key], bool) != isinstance(wanted, bool):
            raise unfit(key, found[key], [wanted])
    return FoundScheduler(
        betas=choice(found, "beta_schedule", BETAS),
        predicts=choice(found, "prediction_type", PREDICTS),
        learned_variance=found["variance_type"] == "learned_range",
        stochasticity=choice(found, "variance_type", STOCHASTICITY),
        **_threshold(found),
    )


def _threshold(found: Mapping[str, Any]) -> dict[str, Any]:
    """The threshold; a dynamic one that may not exceed 1 is a static one."""
    most, ratio = (
        positive_number(found, key) for key in ("sample_max_value", "dynamic_thresholding_ratio")
    )
    thresholding, clip = (flag(found, key) for key in ("thresholding", "clip_sample"))
    dynamic = thresholding and most > 1
    static = thresholding or clip
    return {
        "threshold": "dynamic" if dynamic else "static" if static else "none",
        "percentile": 100 * ratio if dynamic else config.Sampler().percentile,
        "threshold_max": most if dynamic else None,
    }
