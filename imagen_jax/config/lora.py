"""Low-rank adapters (LoRA, arXiv:2106.09685): which kernels they change, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from imagen_jax.config.names import check_line
from imagen_jax.config.ranges import Positive, Range, ShareBelowOne, check_fields
from imagen_jax.config.validate import require

Rank = Annotated[int, Range(low=0, high=2**12)]


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Adapters that a run trains in place of all weights."""

    rank: Rank = 0  # columns of an adapter's first matrix; 0: all weights are trained
    alpha: Positive | None = None  # the change is scaled by alpha / rank; None: by 1
    dropout: ShareBelowOne = 0.0  # share of a kernel's inputs that the change skips in a step
    # Kernels that get one: groups (attention, dense, convolution, all), or patterns of modules'
    # names, such as "down_1/*" or "*/query".
    targets: tuple[str, ...] = ("attention",)
    base: str = ""  # the trained stage that they change, which --init-from gives
    identity: str = ""  # a digest of its weights, which the run takes

    def __post_init__(self) -> None:
        check_fields(self, "lora")
        for target in self.targets:
            check_line(target, "lora: targets")
        for name in ("base", "identity"):
            check_line(getattr(self, name), f"lora: {name}")
        require(bool(self.targets), "lora.targets=(): give at least one group or pattern")

    @property
    def scale(self) -> float:
        """Factor of the product of the two matrices."""
        return 1.0 if self.alpha is None else self.alpha / max(self.rank, 1)
