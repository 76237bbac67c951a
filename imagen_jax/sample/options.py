"""Keyword arguments of `Imagen.sample`, as a `Request` and the prompts that it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from imagen_jax import config
from imagen_jax.image import ORIENTATION, is_white, make_upright, to_rgb
from imagen_jax.sample.request import ARRAYS, Request

if TYPE_CHECKING:
    from PIL.Image import Image

    Images = Image | np.ndarray | Sequence[Image] | Sequence[np.ndarray]

DIFFUSERS = {
    # name in diffusers: what to give here
    "guidance_scale": '`with_sampler({"guidance_weight": ...})`, its name in the paper',
    "num_inference_steps": '`with_sampler({"steps": ...})`',
    "num_images_per_prompt": "`images_per_prompt`",
    "image": "`init_image` to sample from, or `low_res` to enlarge",
    "mask_image": "`mask`",
    "height": "`size=(height, width)`",
    "width": "`size=(height, width)`",
    "generator": "`seed`",
    "prompt": "the prompts as the first argument",
}


class SampleOptions(TypedDict, total=False):
    """Fields of `Request`, more freely given, and `images_per_prompt`.

    Images are one for all prompts or one for each, from PIL or as arrays.
    """

    images_per_prompt: int
    negative_prompt: str | Sequence[str]
    first_stage: str
    last_stage: str
    size: tuple[int, int]
    low_res: Images
    init_image: Images
    strength: float
    mask: Images
    num_resamples: int
    first_index: int


NAMES = frozenset(SampleOptions.__annotations__)
SAMPLER = frozenset(field.name for field in dataclasses.fields(config.Sampler))


def read_options(
    prompts: str | Sequence[str], request: Request, options: Mapping[str, Any]
) -> tuple[list[str], Request]:
    """Every image's prompt, and `request` with the options over its own fields.

    Errors: TypeError for a name that is no option, with the one to use instead; ValueError for no
    prompts, images that can't be read or don't fit the prompts, and as `Request`.
    """
    for name in options:
        if name in DIFFUSERS:
            raise TypeError(f"{name} is the name in diffusers: use {DIFFUSERS[name]}")
        if name in SAMPLER:
            raise TypeError(f'{name} is the sampler\'s: use `with_sampler({{"{name}": ...}})`')
        if name not in NAMES:
            raise TypeError(f"no option {name!r}; there are {', '.join(sorted(NAMES))}")
    listed = [prompts] if isinstance(prompts, str) else prompts
    check_prompts(listed)
    each = config.check_value(
        options.get("images_per_prompt", 1), config.Images, "images_per_prompt"
    )
    check_count(len(listed) * each)
    changes = {n: value for n, value in options.items() if n != "images_per_prompt"}
    negative = changes.get("negative_prompt", "")
    if not isinstance(negative, str):
        changes["negative_prompt"] = tuple(text for text in negative for _ in range(each))
    for name in ARRAYS:
        if changes.get(name) is not None:
            read = _mask if name == "mask" else _pixels
            changes[name] = np.repeat(read(name, changes[name], len(listed)), each, axis=0)
    return [p for p in listed for _ in range(each)], dataclasses.replace(request, **changes)


def check_count(images: int) -> None:
    """Refuse more images than one call keeps account of. Errors: ValueError."""
    config.check_value(images, config.Images, "the number of prompts times images_per_prompt")


def check_prompts(prompts: Sequence[str]) -> None:
    """Errors: ValueError for no prompts, or one that is no string or no Unicode text."""
    if isinstance(prompts, str | bytes) or not hasattr(prompts, "__len__") or not len(prompts):
        raise ValueError(
            f"prompts must be a list of at least one string, got {config.shorten(prompts)}"
        )
    config.check_texts(prompts, what="prompt")


def _pixels(name: str, given: Images, prompts: int) -> np.ndarray:
    """uint8 (prompts, h, w, 3)."""
    return _for_each(name, _stack(name, given, lambda image: _rgb(name, image), rank=3), prompts)


def _mask(name: str, given: Images, prompts: int) -> np.ndarray:
    """bool (prompts, h, w), true where an image is white or an array true."""

    def read(image: Image) -> np.ndarray:
        return is_white(_rgb(name, image))

    found = _stack(name, given, read, rank=2)
    if found.dtype != np.bool_:
        raise ValueError(
            f"mask is {found.dtype} {found.shape}: give an array of bool, true where the image is "
            "sampled again, or a PIL image, white there"
        )
    return _for_each(name, found, prompts)


def _stack(name: str, given: Any, read: Any, *, rank: int) -> np.ndarray:
    """Images as one array, with a row for each; a single one is one row."""
    from PIL.Image import Image

    several = list(given) if isinstance(given, list | tuple) else [given]
    arrays = [read(x) if isinstance(x, Image) else np.asarray(x) for x in several]
    shapes = sorted({x.shape for x in arrays})
    if len(shapes) != 1:
        raise ValueError(f"{name} has images of the shapes {shapes}: give images of one size")
    if isinstance(given, list | tuple):
        return np.stack(arrays)
    return arrays[0][None] if arrays[0].ndim == rank else arrays[0]


def _for_each(name: str, images: np.ndarray, prompts: int) -> np.ndarray:
    if len(images) not in (1, prompts):
        raise ValueError(
            f"{len(images)} images in {name} for {prompts} prompts: give one, or one for each"
        )
    return np.broadcast_to(images, (prompts, *images.shape[1:]))


def _rgb(name: str, image: Image) -> np.ndarray:
    """Upright, and on white where it is transparent, uint8 (h, w, 3)."""
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{name} is an image of mode {image.mode}: convert it to RGB first")
    return np.asarray(make_upright(to_rgb(image), image.getexif().get(ORIENTATION, 1)))
