"""The students of `imagen distill`, and those that `imagen plan` plans before the teacher."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from imagen_jax import config
from imagen_jax.cli import distill
from imagen_jax.io import run_dir
from imagen_jax.plan import compile

(TINY,) = config.load("tiny/base8")
GUIDED = config.Distillation(method="guidance", max_guidance=6.0)
MOMENTS = config.Distillation(method="moments", steps=4, max_guidance=6.0, distilled_teacher=True)


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
    assert "predicts='eps'" in compile.describe_limits(fast.stage)[0]
    assert not compile.describe_limits(base.stage)
    lora = config.Lora(rank=4)
    adapted = dataclasses.replace(base, lora=lora)
    assert compile.describe_training(adapted) == ("train", "base8, adapters of rank 4")


def test_steps_that_mean_nothing_are_refused() -> None:
    (base,) = config.load("tiny/base8")
    with pytest.raises(ValueError, match="method='guidance'"):
        distill.planned_student(base, "guidance", 8)


def test_guidance_is_not_distilled_where_there_is_none(tmp_path: Path) -> None:
    (_, sr64, _) = config.load("shapes")
    with pytest.raises(ValueError, match="stage sr64: with a largest weight of 1 there"):
        distill.planned_student(sr64, "guidance", 0)
    with pytest.raises(ValueError, match="stage base8: with a largest weight of 1 there"):
        taught(tmp_path, TINY, method="guidance", max_guidance=1.0)


def test_the_largest_weight_of_all_is_no_larger_by_default() -> None:
    sampler = dataclasses.replace(TINY.stage.sampler, guidance_weight=60.0)
    strong = dataclasses.replace(TINY, stage=dataclasses.replace(TINY.stage, sampler=sampler))
    found = distill.planned_student(strong, "moments", 2).stage.distillation
    assert found is not None
    assert found.max_guidance == 100


def test_a_progressive_student_takes_all_steps_of_a_progressive_teacher() -> None:
    """The base stage of `shapes-fast` has five: one of a student's is five of its own."""
    (base, *_) = config.load("shapes")
    options = {"teacher": "shapes-fast", "method": "progressive", "steps": 1, "workdir": "runs"}
    with pytest.raises(
        ValueError, match=r"are not the 2 of .*give --steps 1 --teacher-steps 5, or the t"
    ):
        distill.student(base, distill.Options(**options))
    with pytest.raises(ValueError, match="--method moments can't begin with: give the teacher"):
        distill.student(base, distill.Options(**{**options, "method": "moments"}))
    found = distill.student(base, distill.Options(**options, teacher_steps=5)).stage.distillation
    assert found is not None
    assert (found.steps, found.teacher_steps, found.distilled_teacher) == (1, 5, True)


def taught(
    folder: Path, experiment: config.Experiment, given: tuple[str, ...] = (), **options: Any
) -> config.Stage:
    """The student of `experiment`'s stage whose teacher, of that stage too, is in `folder`."""
    run_dir.write_config(folder, experiment)
    wanted = distill.Options(teacher=str(folder), workdir="runs", **options)
    return distill.student(TINY, wanted, given=given).stage


def distilled(how: config.Distillation, **sampler: Any) -> config.Experiment:
    changed = dataclasses.replace(TINY.stage.sampler, **sampler)
    stage = dataclasses.replace(TINY.stage, sampler=changed, distillation=how)
    return dataclasses.replace(TINY, stage=stage)


def test_a_progressive_student_of_another_rules_teacher_is_refused(tmp_path: Path) -> None:
    """The steps agree, but a student of ancestral steps makes no DDIM ones."""
    teacher = distilled(MOMENTS, kind="ancestral", steps=4, stochasticity=0.0)
    with pytest.raises(ValueError, match=r"distilled \(moments\) for 4 .*teacher that it had$"):
        taught(tmp_path, teacher, method="progressive", steps=2)


def test_guidance_is_not_learned_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has learned guidance already: give --method moments"):
        taught(tmp_path, distilled(GUIDED), method="guidance")


@pytest.mark.parametrize("weight", [1.0, 6.5, 20.0])
def test_a_guidance_weight_that_the_teacher_does_not_take_is_refused(
    weight: float, tmp_path: Path
) -> None:
    options: Any = {"method": "moments", "steps": 2}
    with pytest.raises(ValueError, match=f"--max-guidance {weight:g}: .* takes .* of 1 to 6,"):
        taught(tmp_path, distilled(GUIDED), max_guidance=weight, **options)
    found = taught(tmp_path, distilled(GUIDED), max_guidance=4.0, **options).distillation
    assert found is not None
    assert (found.max_guidance, found.distilled_teacher) == (4.0, True)


def test_a_sampler_that_is_given_is_kept_or_refused(tmp_path: Path) -> None:
    options: Any = {"method": "progressive", "steps": 4}
    assert taught(tmp_path, TINY, **options).sampler.steps == 4
    with pytest.raises(ValueError, match=r"sampler\.steps=3, but the network is distilled .*for 4"):
        taught(tmp_path, TINY, given=("steps",), **options)  # the config's own
    with pytest.raises(ValueError, match=r"sampler\.kind='ancestral', but .*for 'ddim'"):
        taught(tmp_path, TINY, given=("kind",), **options)


def test_a_teacher_of_another_network_is_told_by_its_side_or_kind(tmp_path: Path) -> None:
    (enlarging,) = config.load("tiny/sr16")
    with pytest.raises(ValueError, match=r"stage\.size=16 there, 8 in the config: give"):
        taught(tmp_path, enlarging, method="guidance")
    other = dataclasses.replace(enlarging.stage, size=8, low_size=None)
    with pytest.raises(ValueError, match="is of kind EfficientUNet there, UNet in the config: g"):
        taught(tmp_path, dataclasses.replace(enlarging, stage=other), method="guidance")


def test_options_of_the_sampler_are_found_in_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(
        distill, "student", lambda e, options, given: found.append(set(given)) or TINY
    )
    monkeypatch.setattr(distill.train, "run_stages", lambda *_, **__: None)
    command = ["tiny/base8", "--teacher", "t", "--method", "moments", "--workdir", "w"]
    distill.run([*command, "--stage.sampler.steps", "7", "--stage.sampler.guidance-weight=2"])
    assert found == [{"steps", "guidance_weight"}]
    with pytest.raises(ValueError, match="a student repeats its teacher without dropout"):
        distill.run([*command, "--stage.model.dropout", "0.1"])
    distill.run([*command, "--stage.model.dropout", "0"])
