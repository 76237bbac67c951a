"""Options of sampling besides prompts: negative prompts, images to start from, a mask, sizes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from imagen_jax import config
from imagen_jax.config import require
from imagen_jax.image import area_downsample, to_float
from imagen_jax.types import Pixels

Size = Annotated[tuple[int, int], config.Range(low=1, high=2**14)]  # height, width
Resamples = Annotated[int, config.Range(low=1, high=1000)]
LAST_INDEX = 2**31 - 1  # of an image: exported programs take it as int32
Index = Annotated[int, config.Range(low=0, high=LAST_INDEX)]
ARRAYS = ("low_res", "init_image", "mask")  # fields with one row for each prompt


@dataclasses.dataclass(frozen=True, eq=False)
class LazyRows:
    """An array whose rows are made when they are taken: a batch of floats, not one for all."""

    make: Callable[[np.ndarray], np.ndarray]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.make(rows)


def float_rows(pixels: Pixels, factor: int = 1) -> LazyRows:
    """Images as float32 in [-1, 1], each pixel the mean of `factor` x `factor`."""
    return LazyRows(lambda rows: area_downsample(np.asarray(to_float(pixels[rows])), factor))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """Options of one call besides the prompts. Images are uint8 (p, h, w, 3), one for each prompt.

    * `negative_prompt`: text that guidance leads away from, one for all or one for each prompt.
    * `first_stage`, `last_stage`: the stages to run; by default all.
    * `size`: height and width of the last stage's images.
    * `low_res`: images to enlarge by `first_stage`, a super-resolution stage. They may have any
      size; where the networks need another, edges are repeated and cut off again.
    * `init_image`, of the size of the last stage's images: every stage starts from it, noised so
      far that `strength` of its steps are left. Strength 0 returns it unchanged. Beside `low_res`
      it is what that is enlarged to.
    * `mask`, bool (p, h, w): true where `init_image` is sampled again (inpainting); all other
      pixels stay exactly as they are. `num_resamples` repeats each step, which blends new with old
      (RePaint, arXiv:2201.09865).
    * `first_index`: number of the first prompt's image. Image 137 of a list is sampled again by its
      prompt alone with first_index=137, and the seed of the list.
    """

    negative_prompt: str | tuple[str, ...] = ""
    first_stage: str | None = None
    last_stage: str | None = None
    size: Size | None = None
    low_res: np.ndarray | None = None
    init_image: np.ndarray | None = None
    strength: config.Share = 1.0
    mask: np.ndarray | None = None
    num_resamples: Resamples = 1
    first_index: Index = 0

    def __post_init__(self) -> None:
        config.check_fields(self, "request")
        if self.init_image is None:
            require(self.mask is None, "mask needs init_image: it says where that is sampled again")
            require(self.strength == 1.0, f"strength={self.strength} needs init_image")
        require(
            self.num_resamples == 1 or self.mask is not None,
            f"num_resamples={self.num_resamples} needs mask",
        )
        for name in ("low_res", "init_image"):
            require(
                self.size is None or getattr(self, name) is None,
                f"size and {name} exclude each other: each sets the size",
            )
        for name in ("low_res", "init_image"):
            _check_images(name, getattr(self, name))
        if self.mask is not None:
            self._check_mask(self.mask)

    def _check_mask(self, mask: np.ndarray) -> None:
        wanted = None if self.init_image is None else self.init_image.shape[:3]
        require(
            mask.dtype == np.bool_ and mask.shape == wanted,
            f"mask is {mask.dtype} {mask.shape}, wanted bool {wanted}, as init_image has it",
        )
        whole = np.flatnonzero(~mask.any(axis=(1, 2)))
        require(
            len(whole) == 0,
            f"mask is false for every pixel of image {whole[:1].sum()}, so that nothing of it "
            "would be sampled: make it true, or white, where it shall be",
        )

    @property
    def has_negative_prompt(self) -> bool:
        """True if guidance leads away from any text at all."""
        given = self.negative_prompt
        return any(text.strip() for text in ([given] if isinstance(given, str) else given))

    def part(self, start: int, stop: int) -> Request:
        """The request for the prompts from `start` up to `stop`."""
        given = {n: getattr(self, n) for n in ARRAYS}
        rows: dict[str, Any] = {n: None if x is None else x[start:stop] for n, x in given.items()}
        negative = self.negative_prompt
        return dataclasses.replace(
            self,
            negative_prompt=negative if isinstance(negative, str) else negative[start:stop],
            first_index=self.first_index + start,
            **rows,
        )

    def check_count(self, prompts: int) -> None:
        """Errors: ValueError where there is not one image, or one negative prompt, for each prompt.

        Or where their indices go beyond `LAST_INDEX`.
        """
        require(
            self.first_index + prompts - 1 <= LAST_INDEX,
            f"first_index={self.first_index}: {prompts} images go beyond {LAST_INDEX:,}",
        )
        for name in ("low_res", "init_image"):
            count = prompts if getattr(self, name) is None else len(getattr(self, name))
            require(
                count == prompts,
                f"{count} images in {name} for {prompts} prompts: give one for each",
            )
        negative = self.negative_prompt
        count = prompts if isinstance(negative, str) else len(negative)
        require(
            count == prompts,
            f"{count} negative prompts for {prompts} prompts: give one, or one for each",
        )

    def first_size(self, stages: Sequence[config.Stage]) -> tuple[int, int]:
        """Height and width of the first stage's images.

        Errors: ValueError for a size that the stages' factors don't divide, or an `init_image` that
        is not as large as they make `low_res`.
        """
        first, last = stages[0], stages[-1]
        if self.low_res is not None:
            self._check_enlarged(stages)
            height, width = self.low_res.shape[1:3]
            return height * first.factor, width * first.factor
        if self.init_image is not None:
            height, width = self.init_image.shape[1:3]
        elif self.size is not None:
            height, width = self.size
        else:
            return first.size, first.size
        factor = math.prod(stage.factor for stage in stages[1:])
        if height % factor or width % factor:
            near = [max(1, round(side / factor)) * factor for side in (height, width)]
            raise ValueError(
                f"{height}x{width} pixels: height and width of the images of {last.name} must be "
                f"multiples of {factor}, by which the cascade enlarges those of {first.name}; the "
                f"nearest are {near[0]}x{near[1]}"
            )
        return height // factor, width // factor

    def _check_enlarged(self, stages: Sequence[config.Stage]) -> None:
        if self.low_res is None or self.init_image is None:
            return
        factor = math.prod(stage.factor for stage in stages)
        (low_height, low_width), found = self.low_res.shape[1:3], self.init_image.shape[1:3]
        height, width = low_height * factor, low_width * factor
        require(
            found == (height, width),
            f"init_image has {found[0]}x{found[1]} pixels, but low_res, of "
            f"{low_height}x{low_width}, is enlarged to {height}x{width} by {stages[-1].name}: give "
            "an init_image of that size",
        )

    def pad_for(self, stages: Sequence[config.Stage]) -> Request:
        """The request for stages that enlarge `low_res`: padded as `pad_low_res` does.

        So are `init_image` and the mask, by as many pixels as become of those.
        """
        assert self.low_res is not None
        wide = pad_low_res(self.low_res, stages)
        factor = math.prod(stage.factor for stage in stages)
        more = [
            factor * (new - old) for new, old in zip(wide.shape, self.low_res.shape, strict=True)
        ]
        others = {name: getattr(self, name) for name in ("init_image", "mask")}
        padded: dict[str, Any] = {
            n: x if x is None else _pad(x, more[1:3]) for n, x in others.items()
        }
        return dataclasses.replace(self, low_res=wide, **padded)

    def images_of_size(self, size: tuple[int, int]) -> tuple[LazyRows | None, LazyRows | None]:
        """`init_image` as float32 in [-1, 1] and where it stays, (p, h, w, 1), at a stage's size.

        A small pixel is the mean of those it covers, and stays where all of them do.
        """
        image, mask = self.init_image, self.mask
        if image is None:
            return None, None
        factor = image.shape[1] // size[0]
        images = float_rows(image, factor)
        if mask is None:
            return images, None

        def known(rows: np.ndarray) -> np.ndarray:
            return area_downsample((~mask[rows])[..., None].astype(np.float32), factor) == 1.0

        return images, LazyRows(known)


def _check_images(name: str, given: np.ndarray | None) -> None:
    if given is not None and (
        given.dtype != np.uint8 or given.ndim != 4 or given.shape[-1] != 3 or 0 in given.shape
    ):
        raise ValueError(f"{name} is {given.dtype} {given.shape}, wanted uint8 (p, h, w, 3)")


def sizes_of_stages(
    stages: Sequence[config.Stage], first: tuple[int, int]
) -> list[tuple[int, int]]:
    """Height and width of every stage's images, given those of the first.

    Errors: ValueError for a size that a network's strides don't divide.
    """
    found, (height, width) = [], first
    for number, stage in enumerate(stages):
        if number:
            height, width = height * stage.factor, width * stage.factor
        multiple = stage.model.multiple()
        if height % multiple or width % multiple or min(height, width) < 1:
            raise ValueError(
                f"{stage.name} cannot sample {height}x{width} pixels: its network halves them so "
                f"often that height and width must be multiples of {multiple}"
            )
        found.append((height, width))
    return found


def pad_low_res(low_res: np.ndarray, stages: Sequence[config.Stage]) -> np.ndarray:
    """Images (p, h, w, 3), the last row and column repeated until all stages can enlarge them."""
    unit, factor = 1, 1
    for stage in stages:
        factor *= stage.factor
        multiple = stage.model.multiple()
        unit = math.lcm(unit, multiple // math.gcd(multiple, factor))
    return _pad(low_res, [-side % unit for side in low_res.shape[1:3]])


def _pad(images: np.ndarray, more: Sequence[int]) -> np.ndarray:
    """Images or masks (p, h, w, ...) with as many more rows and columns, the last ones repeated."""
    widths = [(0, 0), *((0, n) for n in more), *[(0, 0)] * (images.ndim - 3)]
    return np.pad(images, widths, mode="edge")


PLAIN = Request()
