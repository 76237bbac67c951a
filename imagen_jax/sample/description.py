"""What images are sampled with, as plain values for a file's metadata: stages and their digests."""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax

from imagen_jax.sample.lazy_params import LazyParams
from imagen_jax.sample.progress import digest_of
from imagen_jax.sample.stage_program import TrainedStage

PACKAGES = ("imagen_jax", "jax")  # whose versions decide on an image's last bits


def describe_cascade(
    stages: Sequence[TrainedStage], steps: Mapping[str, int], encoder: str
) -> dict[str, Any]:
    """Describe what decides on an image besides its request.

    That is the text encoder's digest, `encoder`, of each stage name, digest of the weights, steps
    of training where they are known, and sampler, and the versions of packages.
    """
    return {
        "text_encoder": encoder,
        "stages": [
            {
                "name": s.stage.name,
                "step": steps.get(s.stage.name),
                "digest": weights_digest(s),
                "sampler": dataclasses.asdict(s.stage.sampler),
                "aug_level": s.stage.noise_conditioning.sample_level
                if s.stage.is_super_resolution
                else None,
            }
            for s in stages
        ],
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }


def weights_digest(trained: TrainedStage) -> str:
    """Return sixteen letters that tell a stage's weights from others.

    Of weights that are in memory the vectors are read alone, which differ where training made a
    step.
    """
    if isinstance(trained.params, LazyParams):
        return digest_of([], trained.params.identity)
    return digest_of([x for x in jax.tree.leaves(trained.params) if x.ndim < 2])
