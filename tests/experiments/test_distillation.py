"""The experiment on students of few steps: its settings, what it counts and what it writes."""

import dataclasses
import json
from pathlib import Path

import distillation
import pytest
from lib.paired_verdicts import ALL

from imagen_jax import config
from imagen_jax.imagen import Imagen


def student_of(imagen: Imagen, *, method: config.DistillationMethod, steps: int) -> Imagen:
    """The same weights, said to be a student's."""
    first = imagen.stages[0]
    options = config.Distillation(method=method, steps=steps, max_guidance=1.0 if steps else 4.0)
    kind = {"moments": "ancestral"}.get(method, "ddim")
    sampler = dataclasses.replace(
        first.stage.sampler, kind=kind, steps=steps or 4, guidance_weight=1.0, stochasticity=0.0
    )
    stage = dataclasses.replace(first.stage, sampler=sampler, distillation=options)
    return dataclasses.replace(imagen, stages=(dataclasses.replace(first, stage=stage),))


@pytest.fixture
def options(base16, tmp_path: Path, monkeypatch) -> distillation.Options:
    places = {
        "a teacher": base16,
        "runs/moments": student_of(base16, method="moments", steps=2),
    }
    monkeypatch.setattr(distillation, "load", places.__getitem__)
    return distillation.Options(
        cascade="a teacher",
        students=("runs/moments",),
        steps=(1, 2, 8),
        last_stage="base16",
        images=6,
        seeds=2,
        student_seeds=2,
        references=200,
        part=4,
        batch_size=4,
        out=tmp_path / "out",
        workdir=tmp_path / "work",
    )


def test_every_setting_is_judged_on_every_caption(options) -> None:
    distillation.run(options)
    results = json.loads((options.out / "distillation.json").read_text())["results"]
    # The teacher of the tests has 2 steps, guided: fewer are a setting, as many and more are not.
    once = ["teacher", "teacher, noise 2", "teacher, 1 step", "moments, 2 steps"]
    names = [*once, "moments, 2 steps, noise 2"]
    assert list(results) == names
    assert [results[name]["calls"] for name in names] == [4, 4, 2, 2, 2]
    for name in names:
        assert results[name]["right"][ALL]["captions"] == 12
        assert results[name]["frechet"] > 0
        assert results[name]["sharpness"] > 0
    assert results["teacher"]["right"][ALL]["difference"] == 0.0
    # Other noise, other images.
    for name in ("teacher", "moments, 2 steps"):
        assert results[f"{name}, noise 2"]["frechet"] != results[name]["frechet"]
    for file in ("distillation.png", "distillation_images.png"):
        assert (options.out / file).stat().st_size > 0
    assert "| moments, 2 steps | 2 |" in (options.out / "distillation.md").read_text()


def test_students_of_guidance_are_measured_at_fewer_steps(base16, options, monkeypatch) -> None:
    guided = student_of(base16, method="guidance", steps=0)
    monkeypatch.setattr(distillation, "load", lambda place: guided)
    found = distillation.settings(base16, dataclasses.replace(options, seeds=1, student_seeds=1))
    assert [setting.name for setting in found] == [
        "teacher",
        "teacher, 1 step",
        "guidance, 4 steps",
        "guidance, 1 step",
        "guidance, 2 steps",
    ]


def test_students_that_cannot_be_told_apart_are_refused(base16, options) -> None:
    students = ("runs/moments", "runs/moments")
    twice = dataclasses.replace(options, students=students, student_seeds=1)
    with pytest.raises(ValueError, match="students: 'moments, 2 steps' twice"):
        distillation.settings(base16, twice)


def test_a_student_of_another_stage_is_refused(base16, tiny, options, monkeypatch) -> None:
    monkeypatch.setattr(distillation, "load", lambda place: tiny)
    with pytest.raises(ValueError, match="the teacher has no stage"):
        distillation.settings(base16, options)
