"""The options of a sampler that are numbers to its program: turning one compiles nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from imagen_jax import config


class SamplerParams(NamedTuple):
    """Scalars, numpy or jax; `config.Sampler` says what each means.

    `first` and `last` are the steps to make: first, ..., last - 1 of `steps`.
    """

    steps: Any  # these three int32, `repeats` too
    first: Any
    last: Any
    stochasticity: Any  # float32 from here on
    guidance_weight: Any
    guidance_low: Any  # the interval of sigma / alpha; only a program that has one reads it
    guidance_high: Any
    guidance_rescale: Any
    repeats: Any  # of each step where pixels are known (arXiv:2201.09865)

    @classmethod
    def of(cls, sampler: config.Sampler, *, repeats: int = 1) -> SamplerParams:
        """All steps, as `sampler` has them."""
        low, high = sampler.guidance_interval or (0.0, np.inf)
        return cls(
            steps=np.int32(sampler.steps),
            first=np.int32(0),
            last=np.int32(sampler.steps),
            stochasticity=np.float32(sampler.stochasticity),
            guidance_weight=np.float32(sampler.guidance_weight),
            guidance_low=np.float32(low),
            guidance_high=np.float32(high),
            guidance_rescale=np.float32(sampler.guidance_rescale),
            repeats=np.int32(repeats),
        )
