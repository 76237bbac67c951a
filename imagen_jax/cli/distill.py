"""`imagen distill CONFIG --teacher RUN --method M --workdir DIR`: a student of few steps."""

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from imagen_jax import config
from imagen_jax.cli import train
from imagen_jax.config.sentences import join_texts

USAGE = """Distil a trained stage, or every stage of a cascade, into one that few steps sample.

The student begins with its teacher's weights. `guidance` halves the calls of the network, and any
sampler may follow; `moments` and `progressive` then make --steps steps of many. Batches, rates and
the rest are fields of the config, as of `imagen train`: distillation wants a lower learning rate.
Give the same command again to resume.
"""
MOST_GUIDANCE = 100.0  # weight that a student may take
WEIGHTS = 2.0  # times the stage's own guidance weight, which the input goes up to by default
SAME = ("size", "low_size", "model", "diffusion")  # of a stage's fields; weights alone tell less
WITHIN = {"model": ("remat", "dtype", "dropout")}  # what may differ in them
# Options, or their beginning, with _ for -.
SAMPLER, DROPOUT = "__stage.sampler.", "__stage.model.dropout"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(train.RunOptions):
    """Options of `imagen distill`."""

    teacher: str
    """Trained stage, or cascade that has it: the folder of a run, of an exported or embedded one,
    or of an earlier student."""
    method: config.DistillationMethod
    """guidance: one call of the network for the two of classifier-free guidance. moments: a few
    ancestral steps. progressive: one DDIM step for some of the teacher's."""
    steps: config.StepsOrNone = 0
    """Sampling steps of the student, for moments and progressive."""
    teacher_steps: config.TeacherSteps = 2
    """DDIM steps of the teacher for one of the student, for progressive. Two are the published
    number; with more a student of few steps needs no students between."""
    max_guidance: Annotated[float, config.Range(low=1, high=MOST_GUIDANCE)] | None = None
    """Largest guidance weight that the student takes; by default twice the stage's own, or its
    teacher's, and none where the stage has weight 1."""


def run(argv: list[str]) -> None:
    """Parse, then distil each stage. Errors: as `train.run`."""
    options, chosen, cascade = parse(argv)
    named = frozenset(argument.partition("=")[0].replace("-", "_") for argument in argv)
    if DROPOUT in named and any(_has_dropout(e.stage.model) for e in chosen):
        raise ValueError(
            "--stage.model.dropout: a student repeats its teacher without dropout: leave it out"
        )
    sampler = {name.removeprefix(SAMPLER) for name in named if name.startswith(SAMPLER)}
    students = [student(e, options, given=sampler) for e in chosen]
    fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(train.RunOptions)}
    given = train.Options(**fields, init_from=options.teacher)
    train.run_stages("distill", argv, given, students, cascade=cascade)


def _has_dropout(model: config.UNet | config.EfficientUNet | config.DeepFloydUNet) -> bool:
    return not isinstance(model, config.DeepFloydUNet) and model.dropout > 0


def parse(argv: list[str]) -> tuple[Options, list[config.Experiment], bool]:
    """Options, the stages to distil, and whether they are of a cascade.

    Errors: as `train.parse`.
    """
    return train.parse_stages(argv, Options, command="distill", description=USAGE)


def student(
    experiment: config.Experiment, options: Options, *, given: Collection[str] = ()
) -> config.Experiment:
    """The experiment of a stage's student.

    Fields of the sampler that were `given` stay as they are, and the others become the method's.
    Errors: FileNotFoundError for no teacher; ValueError for one of another network, or for options
    that mean nothing to the method.
    """
    teacher = _read_teacher(experiment.stage, options)
    _require_same(experiment.stage, teacher, options)
    before, most = teacher.distillation, options.max_guidance
    if before is not None:
        _require_fit(before, options)
    if most is None:
        most = before.max_guidance if before else _default_guidance(teacher)
    _require_guidance(experiment.stage, options.method, most)
    distillation = config.Distillation(
        method=options.method,
        steps=options.steps,
        teacher_steps=options.teacher_steps,
        max_guidance=most,
        distilled_teacher=before is not None and before.has_guidance_input,
    )
    folder = os.path.abspath(options.teacher) if Path(options.teacher).exists() else options.teacher
    made = _with_distillation(experiment, distillation, given=given)
    return dataclasses.replace(made, teacher=config.Teacher(folder=folder))


def _require_fit(before: config.Distillation, options: Options) -> None:
    """Refuse a teacher that is a student and not of what the options ask. Errors: ValueError."""
    said, most = f"--teacher {options.teacher}: it", options.max_guidance
    if before.method == "guidance" == options.method:
        raise ValueError(
            f"{said} has learned guidance already: give --method moments or progressive, or the "
            "teacher that it had"
        )
    if before.method != "guidance":
        _require_steps(before, options)
    if before.has_guidance_input and most is not None and not 1 < most <= before.max_guidance:
        raise ValueError(
            f"--max-guidance {most:g}: the teacher {options.teacher} takes a guidance weight of 1 "
            f"to {before.max_guidance:g}, and so does its student: give more than 1, and at most "
            "that"
        )


def _require_steps(before: config.Distillation, options: Options) -> None:
    """Refuse a teacher of few steps that the student's are not made of. Errors: ValueError."""
    said = f"--teacher {options.teacher}: it is distilled ({before.method}) for {before.steps} "
    said += f"step{'s' * (before.steps > 1)}, which "
    if options.method != "progressive" or before.method != "progressive":
        raise ValueError(
            f"{said}--method {options.method} can't begin with: give the teacher that it had"
        )
    asked = options.steps * options.teacher_steps
    if before.steps != asked:
        fitting = [n for n in range(1, before.steps) if before.steps % n == 0]
        choices = [f"--steps {n} --teacher-steps {before.steps // n}" for n in fitting[::-1]]
        remedy = f"give {join_texts(choices, separator=' or ')}, or " if choices else "give "
        raise ValueError(
            f"{said}are not the {asked} of --steps {options.steps} and --teacher-steps "
            f"{options.teacher_steps}: {remedy}the teacher that it had"
        )


def planned_student(
    experiment: config.Experiment, method: config.DistillationMethod, steps: int
) -> config.Experiment:
    """The experiment of a student whose teacher is not there yet.

    Guidance is learned from a plain teacher, and everything else from a student of guidance.
    Errors: ValueError for steps that mean nothing to the method, or are missing.
    """
    most = _default_guidance(experiment.stage)
    _require_guidance(experiment.stage, method, most)
    distillation = config.Distillation(
        method=method,
        steps=steps,
        max_guidance=most,
        distilled_teacher=method != "guidance" and most > 1,
    )
    return _with_distillation(experiment, distillation)


def _default_guidance(stage: config.Stage) -> float:
    weight = stage.sampler.guidance_weight
    return min(max(1.0, WEIGHTS * weight * (weight != 1)), MOST_GUIDANCE)


def _require_guidance(stage: config.Stage, method: config.DistillationMethod, most: float) -> None:
    """Refuse to distil guidance that a stage does not have. Errors: ValueError."""
    if method == "guidance" and most == 1:
        raise ValueError(
            f"stage {stage.name}: with a largest weight of 1 there is no guidance to distil: leave "
            "the stage out, or give a larger weight"
        )


def _with_distillation(
    experiment: config.Experiment,
    distillation: config.Distillation,
    *,
    given: Collection[str] = (),
) -> config.Experiment:
    """The experiment of a student. Errors: ValueError for what was `given` and does not suit it."""
    fields = {n: x for n, x in _sampler_fields(distillation).items() if n not in given}
    sampler = dataclasses.replace(experiment.stage.sampler, **fields)
    stage = dataclasses.replace(experiment.stage, sampler=sampler, distillation=distillation)
    return dataclasses.replace(experiment, stage=stage)


def _sampler_fields(options: config.Distillation) -> dict[str, Any]:
    """Fields of the sampler that a method fixes."""
    if options.method == "guidance":
        return {}
    steps = {"steps": options.steps, "spacing": None} if options.steps else {}
    if options.method == "moments":
        return {"kind": "ancestral", "stochasticity": 0.0, **steps}
    return {"kind": "ddim", **steps}


def _read_teacher(stage: config.Stage, options: Options) -> config.Stage:
    """The stage of --teacher as it was trained. Errors: FileNotFoundError."""
    from imagen_jax import pretrained
    from imagen_jax.io import run_dir
    from imagen_jax.pretrained import locate

    place = locate.find_stage(options.teacher, stage.name)
    if place is None:
        raise FileNotFoundError(
            f"--teacher {options.teacher}: neither it nor a folder {stage.name} in it is a run or "
            f"an exported stage (no {run_dir.CONFIG}); embedded cascades: "
            f"{', '.join(pretrained.list_names())}"
        )
    return run_dir.read_config(place).stage


def _require_same(stage: config.Stage, teacher: config.Stage, options: Options) -> None:
    """Refuse a teacher of another network, or of another process. Errors: ValueError."""
    for name in SAME:
        ours, theirs = getattr(stage, name), getattr(teacher, name)
        if name in WITHIN and type(ours) is type(theirs):
            free = {field: getattr(ours, field) for field in WITHIN[name] if hasattr(ours, field)}
            theirs = dataclasses.replace(theirs, **free)
        if ours != theirs:
            difference, option = _first_difference(f"stage.{name}", ours, theirs)
            raise ValueError(
                f"--teacher {options.teacher}: {difference}: give the config that it was trained "
                f"with, and the options that were given then{option}"
            )


def _first_difference(name: str, ours: Any, theirs: Any) -> tuple[str, str]:
    """A sentence on the first field that differs, and the option that sets it, if one does."""
    if dataclasses.is_dataclass(ours) and type(ours) is type(theirs):
        for field in dataclasses.fields(ours):
            a, b = getattr(ours, field.name), getattr(theirs, field.name)
            if a != b:
                return _first_difference(f"{name}.{field.name}", a, b)
    if dataclasses.is_dataclass(ours) and dataclasses.is_dataclass(theirs):
        kinds = type(theirs).__name__, type(ours).__name__
        return f"{name} is of kind {kinds[0]} there, {kinds[1]} in the config", ""
    single = isinstance(theirs, str | int | float) and not isinstance(theirs, bool)
    option = f", such as --{name.replace('_', '-')} {theirs}" if single else ""
    return f"{name}={theirs!r} there, {ours!r} in the config", option
