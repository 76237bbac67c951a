"""How much is tried of a target."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Inputs of a target, at most so many seconds, and what makes others of them."""

    inputs: int
    seconds: float = 1e9
    seed: int = 0
