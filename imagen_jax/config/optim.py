"""The optimiser, its learning rate by step, and the average of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from imagen_jax.config.names import check_line
from imagen_jax.config.ranges import (
    NotNegative,
    Positive,
    Range,
    ShareBelowOne,
    Whole,
    check_fields,
)

ClipNorm = Annotated[float, Range(above=0, remedy="None is off")]


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Optimiser, schedule and EMA (section 4.1, appendix F; EMA, clipping and Muon are ours)."""

    kind: Literal["adam", "adafactor", "muon"] = "adam"  # muon: arXiv:2502.16982, with adam
    learning_rate: Positive = 1e-4
    warmup_steps: Whole = 10_000
    schedule: Literal["cosine", "constant"] = "cosine"
    final_learning_rate: NotNegative = 0.0
    b1: ShareBelowOne = 0.9  # of adam, as b2; muon takes both for what is no matrix
    b2: ShareBelowOne = 0.999
    # Multiply updates by each kernel's RMS, as optax does by default: what begins at zero then
    # hardly moves.
    adafactor_param_scale: bool = False
    clip_norm: ClipNorm | None = 1.0  # the gradients' largest norm; None: they are not scaled
    ema_decay: ShareBelowOne = 0.9999  # of the averaged weights, a step
    ema_start: Whole = 0  # steps before the average begins; until then it is the weights
    # Parameters that stay as they are: patterns of their names, such as "text/*" or "down_0/*".
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "optim")
        for pattern in self.frozen:
            check_line(pattern, "optim: frozen")
