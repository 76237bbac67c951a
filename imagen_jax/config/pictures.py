"""What becomes of pictures of any size before they are stored: `Framing` and `Filters`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from imagen_jax.config.checks import require

Crop = Literal["centre", "random"]


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How a picture becomes a square: its short side is resized to the square's."""

    crop: Crop = "centre"
    """Which window of the long side is kept; a random one is drawn once for each picture."""
    flip: bool = False
    """Mirror every second picture, at random; off, since captions say left and right."""
    crop_seed: int = 0
    """Of what is drawn."""

    def __post_init__(self) -> None:
        require(self.crop_seed >= 0, f"crop_seed={self.crop_seed} must not be negative")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which pictures are dropped; one that would have to be enlarged always is."""

    min_side: int = 0
    """Pixels of the short side, at least."""
    max_aspect: float | None = None
    """Long side by short side, at most."""
    min_caption_chars: int = 0
    """Characters of a caption, at least; space around it does not count."""
    max_caption_chars: int = 10_000
    """Characters of a caption, at most: a longer one is no caption."""
    max_captions: int = 16
    """Captions of a picture, at most: the first that pass; training draws one at each visit."""

    def __post_init__(self) -> None:
        require(self.min_side >= 0, f"min_side={self.min_side} must not be negative")
        require(
            self.max_aspect is None or self.max_aspect >= 1,
            f"max_aspect={self.max_aspect} drops every picture: give 1 or more",
        )
        require(self.max_captions > 0, f"max_captions={self.max_captions} leaves no caption")
        require(
            0 <= self.min_caption_chars <= self.max_caption_chars,
            f"min_caption_chars={self.min_caption_chars} and "
            f"max_caption_chars={self.max_caption_chars} leave no caption",
        )
