"""Preparation of images of any size before they are stored: `Framing` and `Filters`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from imagen_jax.config.ranges import Count, Range, Seed, Whole, check_fields
from imagen_jax.config.validate import require

Crop = Literal["centre", "random"]
Aspect = Annotated[float, Range(low=1, remedy="below 1 it drops every image")]


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Framing of an image to a square: its short side is resized to the square's."""

    crop: Crop = "centre"
    """Window of the long side that is kept; a random one is drawn once for each image."""
    flip: bool = False
    """Mirror every second image, at random; off, since captions say left and right."""
    crop_seed: Seed = 0
    """Random seed of what is drawn."""

    def __post_init__(self) -> None:
        check_fields(self, "framing")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Filters of images; one that would have to be enlarged is always dropped."""

    min_side: Whole = 0
    """Pixels of the short side, at least."""
    max_aspect: Aspect | None = None
    """Long side by short side, at most."""
    min_caption_chars: Whole = 0
    """Characters of a caption, at least; space around it does not count."""
    max_caption_chars: Whole = 10_000
    """Characters of a caption, at most: a longer one is no caption."""
    max_captions: Count = 16
    """Captions of an image, at most: the first that pass; training draws one at each visit."""

    def __post_init__(self) -> None:
        check_fields(self, "filters")
        require(
            self.min_caption_chars <= self.max_caption_chars,
            f"min_caption_chars={self.min_caption_chars} and "
            f"max_caption_chars={self.max_caption_chars} leave no caption",
        )
