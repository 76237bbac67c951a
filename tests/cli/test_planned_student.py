"""The students that `imagen plan --distill` plans before there is a teacher."""

import dataclasses

import pytest

from imagen_jax import config
from imagen_jax.cli import distill
from imagen_jax.plan import compile


def test_guidance_is_learned_from_a_plain_teacher_and_the_rest_from_its_student() -> None:
    (base,) = config.load("imagen/base64_2b")
    weight = base.stage.sampler.guidance_weight
    guided = distill.planned_student(base, "guidance", 0).stage
    assert guided.sampler == base.stage.sampler
    assert guided.distillation == config.Distillation(method="guidance", max_guidance=2 * weight)
    fast = distill.planned_student(base, "moments", 8).stage
    assert (fast.sampler.kind, fast.sampler.steps) == ("ancestral", 8)
    assert fast.distillation == config.Distillation(
        method="moments", steps=8, max_guidance=2 * weight, distilled_teacher=True
    )
    assert not fast.is_guided


def test_a_stage_without_guidance_has_no_input_for_it() -> None:
    (_, sr64, _) = config.load("shapes")
    fast = distill.planned_student(sr64, "progressive", 2).stage
    assert fast.distillation == config.Distillation(method="progressive", steps=2)


def test_a_plan_says_that_it_distils_and_how() -> None:
    (base,) = config.load("tiny/base8")
    assert compile.describe_training(base) == ("train", "base8")
    guided = distill.planned_student(base, "guidance", 0)
    assert compile.describe_training(guided) == ("distill", "base8, guidance")
    fast = distill.planned_student(base, "moments", 8)
    assert compile.describe_training(fast) == ("distill", "base8, moments in 8 steps")
    lora = config.Lora(rank=4)
    adapted = dataclasses.replace(base, lora=lora)
    assert compile.describe_training(adapted) == ("train", "base8, adapters of rank 4")


def test_steps_that_mean_nothing_are_refused() -> None:
    (base,) = config.load("tiny/base8")
    with pytest.raises(ValueError, match="method='guidance'"):
        distill.planned_student(base, "guidance", 8)


def test_a_progressive_student_takes_all_steps_of_a_progressive_teacher() -> None:
    """The base stage of `shapes-fast` has five: one of a student's is five of its own."""
    (base, *_) = config.load("shapes")
    options = {"teacher": "shapes-fast", "method": "progressive", "steps": 1, "workdir": "runs"}
    with pytest.raises(ValueError, match=r"for 5 steps.* --steps times --teacher-steps 5$"):
        distill.student(base, distill.Options(**options))
    found = distill.student(base, distill.Options(**options, teacher_steps=5)).stage.distillation
    assert found is not None
    assert (found.steps, found.teacher_steps, found.distilled_teacher) == (1, 5, True)
