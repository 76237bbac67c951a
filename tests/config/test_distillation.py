"""Distilled stages refuse every option that their network was not trained for."""

import dataclasses
from typing import Any

import pytest

from imagen_jax import config

MOMENTS = config.Distillation(method="moments", steps=4, max_guidance=3.0)
SAMPLER = config.Sampler(kind="ancestral", steps=4, stochasticity=0.0, guidance_weight=2.0)
NETWORK = config.UNet(
    channels=32, attention_at=(16,), channel_mult=(1, 1), norm_groups=8, head_channels=32
)


def stage(distilled: config.Distillation = MOMENTS, **changes: Any) -> config.Stage:
    return config.Stage(
        name="base",
        size=32,
        model=NETWORK,
        sampler=dataclasses.replace(SAMPLER, **changes),
        distillation=distilled,
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 8}, r"steps=8, but the network is distilled \(moments\) for 4"),
        ({"kind": "ddim"}, r"kind='ddim', .*for 'ancestral'"),
        ({"spacing": "karras"}, r"spacing='karras', .*for 'time'"),
        ({"stochasticity": 0.3}, r"stochasticity=0\.3, .*without it"),
        (
            {"guidance_interval": (0.1, 1.0)},
            r"guidance_interval=\(0\.1, .*without it: leave",
        ),
        ({"guidance_rescale": 0.5}, r"guidance_rescale=0\.5"),
        ({"guidance_weight": 3.5}, r"guidance_weight=3\.5, .*for 1 to 3"),
        ({"guidance_weight": 0.0}, r"guidance_weight=0, .*for 1 to 3"),
    ],
)
def test_a_sampler_that_the_network_does_not_know_is_refused(
    changes: dict[str, Any], named: str
) -> None:
    assert stage().distillation == MOMENTS
    with pytest.raises(ValueError, match=named):
        stage(**changes)


def test_without_a_guidance_input_the_weight_is_one() -> None:
    plain = dataclasses.replace(MOMENTS, max_guidance=1.0)
    assert not stage(plain, guidance_weight=1.0).has_guidance_input
    with pytest.raises(ValueError, match=r"guidance_weight=2, .*for 1 alone"):
        stage(plain)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"method": "moments"}, "method='moments' needs the number of steps"),
        ({"method": "guidance", "max_guidance": 3.0, "steps": 4}, "steps=4 means nothing"),
        ({"method": "guidance"}, r"max_guidance=1 .*has nothing to learn"),
        (
            {"method": "guidance", "max_guidance": 3.0, "distilled_teacher": True},
            r"distilled_teacher=True has nothing to learn",
        ),
        ({"method": "moments", "steps": 2, "max_guidance": 0.5}, r"max_guidance=0\.5"),
        ({"method": "moments", "steps": 2, "teacher_steps": 4}, r"teacher_steps=4 means nothing"),
        ({"method": "progressive", "steps": 2, "teacher_steps": 1}, r"teacher_steps=1"),
    ],
)
def test_options_that_mean_nothing_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config.Distillation(**fields)


def test_discrete_time_and_adapters_are_refused() -> None:
    discrete = config.Diffusion(schedule=config.NoiseSchedule(kind="cosine_betas"))
    with pytest.raises(ValueError, match=r"continuous time, not of .*cosine_betas"):
        dataclasses.replace(stage(), diffusion=discrete)
    with pytest.raises(ValueError, match=r"lora\.rank=4: distillation trains all weights"):
        config.Experiment(stage=stage(), lora=config.Lora(rank=4))


def test_a_distilled_stage_survives_json() -> None:
    experiment = config.Experiment(stage=stage(), teacher=config.Teacher(folder="runs/teacher"))
    assert config.from_json(config.to_json(experiment)) == experiment
