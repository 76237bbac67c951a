"""Distillation: a stage whose network makes in few steps what a teacher makes in many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from imagen_jax.config.diffusion import Sampler
from imagen_jax.config.names import check_line
from imagen_jax.config.ranges import Range, StepsOrNone, TeacherSteps, check_fields
from imagen_jax.config.validate import require

DistillationMethod = Literal["guidance", "moments", "progressive"]
# The rule of the sampler that each method trains a network for; guidance is for any.
RULES = {"moments": "ancestral", "progressive": "ddim"}


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a stage's network was distilled from a teacher's, which it begins with."""

    # guidance: one call of the network for two (arXiv:2210.03142, stage one). moments: a few
    # ancestral steps (arXiv:2406.04103). progressive: a DDIM step for some of the teacher's
    # (arXiv:2202.00512).
    method: DistillationMethod
    steps: StepsOrNone = 0  # of the sampler that it is trained for; 0, of guidance: any
    teacher_steps: TeacherSteps = 2  # for one of the student's, of progressive
    # Guidance weights from 1 to this are an input of the network; 1: it has none, and guides by 1.
    max_guidance: Annotated[float, Range(low=1, high=100)] = 1.0
    # The teacher has that input as well, and is called once; else it is guided by two calls.
    distilled_teacher: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "distillation")
        require(
            self.method == "progressive" or self.teacher_steps == 2,
            f"distillation: teacher_steps={self.teacher_steps} means nothing to "
            f"method={self.method!r}: leave it out",
        )
        if self.method == "guidance":
            require(
                self.steps == 0,
                f"distillation: steps={self.steps} means nothing to method='guidance', whose "
                "network takes any number: leave it out",
            )
            require(
                self.max_guidance > 1 and not self.distilled_teacher,
                f"distillation: method='guidance' with max_guidance={self.max_guidance:g} and "
                f"distilled_teacher={self.distilled_teacher} has nothing to learn: give a "
                "max_guidance above 1 and a teacher that is called twice",
            )
        else:
            require(
                self.steps > 0,
                f"distillation: method={self.method!r} needs the number of steps: give 1 or more",
            )

    def require_sampler(self, sampler: Sampler, where: str) -> None:
        """Refuse a sampler that the network is not trained for. Errors: ValueError."""
        own: dict[str, Any] = {"guidance_interval": None, "guidance_rescale": 0.0}
        if self.method in RULES:
            own |= {"kind": RULES[self.method], "levels": "time", "steps": self.steps}
        if self.method == "moments":
            own["stochasticity"] = 0.0
        for name, value in own.items():
            given = getattr(sampler, name)
            require(
                given == value,
                f"{where}: sampler.{'spacing' if name == 'levels' else name}={given!r}, but the "
                f"network is distilled ({self.method}) "
                + (f"for {value!r}: leave it at that" if value else "without it: leave it out"),
            )
        weight = sampler.guidance_weight
        require(
            1 <= weight <= self.max_guidance,
            f"{where}: sampler.guidance_weight={weight:g}, but the network is distilled for "
            + (f"1 to {self.max_guidance:g}" if self.has_guidance_input else "1 alone")
            + ": keep to that",
        )

    def sampler_numbers(self) -> dict[str, float]:
        """Numbers of a sampler that the network is trained for."""
        found: dict[str, float] = {"guidance_weight": self.max_guidance, "guidance_rescale": 0.0}
        if self.method in RULES:
            found["steps"] = self.steps
        if self.method == "moments":
            found["stochasticity"] = 0.0
        return found

    @property
    def has_guidance_input(self) -> bool:
        """Whether the guidance weight is an input of the network."""
        return self.max_guidance > 1


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The trained stage that a run distils."""

    folder: str = ""
    identity: str = ""  # a digest of its weights, which the run takes

    def __post_init__(self) -> None:
        check_fields(self, "teacher")
        for name in ("folder", "identity"):
            check_line(getattr(self, name), f"teacher: {name}")
