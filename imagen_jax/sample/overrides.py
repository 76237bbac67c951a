"""Samplers changed, for all stages of a cascade or for some."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imagen_jax import config
from imagen_jax.config.unread import why_unread
from imagen_jax.diffusion.samplers import StepRule
from imagen_jax.sample.stage_program import TrainedStage

Changes = Sequence[tuple[str | None, Mapping[str, Any]]]  # stage or None for all, its changes
FIELDS = frozenset(f.name for f in dataclasses.fields(config.Sampler))


def apply_overrides(stages: Iterable[TrainedStage], changes: Changes) -> tuple[TrainedStage, ...]:
    """Stages with fields of `config.Sampler` (or `aug_level`) changed, the later ones over all.

    Errors: ValueError for an unknown stage or field.
    """
    stages = tuple(stages)
    for stage, changed in changes:
        _check_name(stage, stages)
        stages = tuple(
            s if stage not in (None, s.stage.name) else _changed(s, changed) for s in stages
        )
    return stages


def with_step_rule(
    stages: Iterable[TrainedStage], step_rule: StepRule, stage: str | None
) -> tuple[TrainedStage, ...]:
    """Stages, all or the one named, that take their steps by this rule.

    Errors: ValueError for an unknown stage; TypeError for a rule that can't be called.
    """
    if not callable(step_rule):
        raise TypeError(
            f"step_rule={config.shorten(step_rule)}: must be a function of a step and `denoise`"
        )
    stages = tuple(stages)
    _check_name(stage, stages)
    return tuple(
        dataclasses.replace(s, step_rule=step_rule) if stage in (None, s.stage.name) else s
        for s in stages
    )


def _check_name(stage: str | None, stages: Sequence[TrainedStage]) -> None:
    names = [s.stage.name for s in stages]
    if stage is not None and stage not in names:
        raise ValueError(f"no stage {stage!r} in this cascade; it has {names}")


def check_used(
    stages: Iterable[config.Stage], changes: Changes, *, flags: Mapping[str, str] | None = None
) -> None:
    """Refuse a change that none of the stages it is for reads; they are as they are in the end.

    `flags` are what options are called, if not by their fields' names. A whole sampler is a
    config's: it holds what its kind does not read.
    Errors: ValueError that names option, value and reason.
    """
    stages = tuple(stages)
    for where, changed in changes:
        if set(changed) >= FIELDS:
            continue
        concerned = [s for s in stages if where in (None, s.name)]
        for name, value in changed.items():
            why = [f"{s.name}: {why_unread(s, name, value)}" for s in concerned]
            if not concerned:
                why = [f"only {', '.join(s.name for s in stages)} samples here"]
            elif not all(why_unread(s, name, value) for s in concerned):
                continue
            said = f"{(flags or {}).get(name, name)} {'' if where is None else f'{where}='}{value}"
            raise ValueError(f"{said} would change nothing: {'; '.join(why)}")


def _changed(trained: TrainedStage, changes: Mapping[str, Any]) -> TrainedStage:
    stage, known = trained.stage, FIELDS | {"aug_level"}
    if not isinstance(changes, Mapping):
        raise ValueError(f"changes={changes!r}: must be a dictionary, such as {{'steps': 64}}")
    if unknown := sorted(set(changes) - known, key=str):
        raise ValueError(f"unknown sampler option {unknown[0]!r}; there are {sorted(known)}")
    sampler = {k: v for k, v in changes.items() if k != "aug_level"}
    noise = stage.noise_conditioning
    if "aug_level" in changes:
        noise = dataclasses.replace(noise, sample_level=changes["aug_level"])
    return dataclasses.replace(
        trained,
        stage=dataclasses.replace(
            stage, sampler=dataclasses.replace(stage.sampler, **sampler), noise_conditioning=noise
        ),
    )
