"""What is painted besides prompts: negatives, a picture to begin from, pixels to keep, sides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from imagen_jax import config
from imagen_jax.config import require
from imagen_jax.image import area_downsample, to_float

Sides = Annotated[tuple[int, int], config.Range(low=1)]  # height, width
LAST_INDEX = 2**31 - 1  # of a picture: exported programs take it as int32
Index = Annotated[int, config.Range(low=0, high=LAST_INDEX)]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """Pictures are uint8 (p, h, w, 3), one for each prompt.

    * `low_res` is enlarged: the cascade begins with a super-resolution stage, `start`. Its sides
      may be any; where the networks need others, edges are repeated and cut off again.
    * `picture`, of the sides that the last stage paints, is painted over: every stage begins with
      it, noised so far that `strength` of its steps are left. At 0 it comes back as it is.
    * `keep`, bool (p, h, w), is true where `picture` stays, to the pixel; the rest is painted to
      fit (inpainting). `repeats` makes each step so often, which fits it better.
    * `first_index` numbers the first prompt's picture: picture 137 of a list is painted again by
      its prompt alone with first_index=137, and the seed of the list.
    """

    negative: str | tuple[str, ...] = ""  # what guidance leads away from; one, or one a prompt
    start: str | None = None  # stage to begin with; default the first
    sides: Sides | None = None  # of the last stage's pictures
    low_res: np.ndarray | None = None
    picture: np.ndarray | None = None
    strength: config.Share = 1.0
    keep: np.ndarray | None = None
    repeats: config.Count = 1
    first_index: Index = 0  # of the first prompt's picture

    def __post_init__(self) -> None:
        config.check_fields(self, "request")
        if self.picture is None:
            require(self.keep is None, "keep says where a picture stays: give picture, too")
            require(self.strength == 1.0, f"strength={self.strength} needs a picture to begin with")
        require(self.repeats == 1 or self.keep is not None, f"repeats={self.repeats} needs keep")
        given = [n for n in ("sides", "low_res", "picture") if getattr(self, n) is not None]
        require(len(given) < 2, f"{' and '.join(given)} exclude each other: each says the sides")
        for name in ("low_res", "picture"):
            _check_pictures(name, getattr(self, name))
        if self.keep is not None:
            wanted = None if self.picture is None else self.picture.shape[:3]
            require(
                self.keep.dtype == np.bool_ and self.keep.shape == wanted,
                f"keep is {self.keep.dtype} {self.keep.shape}, wanted bool {wanted}",
            )
            whole = np.flatnonzero(self.keep.all(axis=(1, 2)))
            require(
                len(whole) == 0,
                f"keep is true for every pixel of picture {whole[:1].sum()}, so that nothing of it "
                "would be painted: make it false where it shall be",
            )

    @property
    def has_negative(self) -> bool:
        """Whether guidance leads away from any text at all."""
        given = [self.negative] if isinstance(self.negative, str) else self.negative
        return any(text.strip() for text in given)

    def part(self, start: int, stop: int) -> Request:
        """What is wanted of the prompts from `start` up to `stop`."""
        given = {n: getattr(self, n) for n in ("low_res", "picture", "keep")}
        return dataclasses.replace(
            self,
            negative=self.negative if isinstance(self.negative, str) else self.negative[start:stop],
            first_index=self.first_index + start,
            **{n: None if x is None else x[start:stop] for n, x in given.items()},
        )

    def check_count(self, prompts: int) -> None:
        """Errors: ValueError where there is not one picture, or one negative, for each prompt.

        Or where their indices go beyond `LAST_INDEX`.
        """
        require(
            self.first_index + prompts - 1 <= LAST_INDEX,
            f"first_index={self.first_index}: {prompts} pictures go beyond {LAST_INDEX:,}",
        )
        for name in ("low_res", "picture"):
            count = prompts if getattr(self, name) is None else len(getattr(self, name))
            require(
                count == prompts,
                f"{count} pictures in {name} for {prompts} prompts: give one for each",
            )
        count = prompts if isinstance(self.negative, str) else len(self.negative)
        require(
            count == prompts,
            f"{count} negative prompts for {prompts} prompts: give one, or one for each",
        )

    def first_sides(self, stages: Sequence[config.Stage]) -> tuple[int, int]:
        """Height and width of the first stage's pictures.

        Errors: ValueError for sides that the stages' factors don't divide.
        """
        first, last = stages[0], stages[-1]
        if self.low_res is not None:
            height, width = self.low_res.shape[1:3]
            return height * first.factor, width * first.factor
        if self.picture is None and self.sides is None:
            return first.size, first.size
        factor = math.prod(stage.factor for stage in stages[1:])
        height, width = self.sides if self.picture is None else self.picture.shape[1:3]
        require(
            height % factor == 0 and width % factor == 0,
            f"{height}x{width} pixels: {last.name} paints {factor} times the sides of "
            f"{first.name}, so that they must divide by {factor}",
        )
        return height // factor, width // factor

    def at(
        self, sides: tuple[int, int], rows: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Rows of `picture` as float32 in [-1, 1] and of `keep` (b, h, w, 1), at a stage's sides.

        A small pixel is the mean of those it covers, and known where all of them are.
        """
        if self.picture is None:
            return None, None
        factor = self.picture.shape[1] // sides[0]
        picture = area_downsample(np.asarray(to_float(self.picture[rows])), factor)
        if self.keep is None:
            return picture, None
        known = self.keep[rows][..., None].astype(np.float32)
        return picture, area_downsample(known, factor) == 1.0


def _check_pictures(name: str, given: np.ndarray | None) -> None:
    if given is not None and (
        given.dtype != np.uint8 or given.ndim != 4 or given.shape[-1] != 3 or 0 in given.shape
    ):
        raise ValueError(f"{name} is {given.dtype} {given.shape}, wanted uint8 (p, h, w, 3)")


PLAIN = Request()
