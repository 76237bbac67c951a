"""Shapes that all sides of the comparison share, and the work that each of them measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

GUIDANCE = 5.0
HEAD_CHANNELS = 64


class Missing(Exception):
    """A project that is not installed here, in one sentence with the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """One network's shapes, text and batch."""

    size: int = 64
    low_size: int | None = None  # side of a low-resolution input; None: a base network
    halves_first: bool = False  # a network that halves first and doubles last in each level
    batch: int = 4
    channels: int = 64
    channel_mult: tuple[int, ...] = (1, 2, 4)
    res_blocks: int = 2
    attention_at: tuple[int, ...] = (32, 16)
    text_length: int = 32
    text_width: int = 256
    steps: int = 4  # of a sampling loop

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the feature maps that each level's residual blocks read."""
        first = self.size // 2 if self.halves_first else self.size
        return tuple(first // 2**level for level in range(len(self.channel_mult)))

    @property
    def attends(self) -> tuple[bool, ...]:
        """True for each level that attends."""
        return tuple(side in self.attention_at for side in self.sides)


CASES = {
    "base, 64 px": Shapes(),
    "super-resolution, 16 to 64 px": Shapes(low_size=16, attention_at=(16,)),
    "super-resolution, 16 to 64 px, halved first": Shapes(
        low_size=16, halves_first=True, attention_at=(8,)
    ),
}


@dataclasses.dataclass(frozen=True)
class Work:
    """Work that a side repeats: `call` makes `steps` steps."""

    parameters: int
    forward: float  # FLOPs of one image: of a forward pass, or of a guided sampling step
    flops: float  # of a step of the whole batch
    call: Callable[[], Any]
    steps: int = 1
