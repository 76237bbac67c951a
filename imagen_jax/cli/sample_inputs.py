"""Image files that `imagen sample` is given, as a `Request`."""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagen_jax import config
from imagen_jax.config.sentences import abridge, shorten
from imagen_jax.image import WHITE, fit_image, is_white
from imagen_jax.io import whole_files

if TYPE_CHECKING:
    from PIL.Image import Image

    from imagen_jax.cli.sample import Options
    from imagen_jax.sample.request import Request

ALIKE = 0.02  # by which ratios of width to height may differ, rounded to pixels as they are


def make_request(options: "Options", stages: Sequence[config.Stage], prompts: int) -> "Request":
    """The request that the options of `imagen sample` make, for so many prompts.

    Errors: ValueError that names an option, or the file that is no image.
    """
    from imagen_jax.sample.request import Request

    _check(options, stages)
    size = None if options.size is None else read_size(options.size, "--size")
    low_res = None if options.low_res is None else _images(options.low_res, prompts, None)
    init_image = mask = None
    if options.init_image is not None:
        shape = size or (stages[-1].size, stages[-1].size)
        if low_res is not None:
            factor = math.prod(stage.factor for stage in stages)
            shape = (low_res.shape[1] * factor, low_res.shape[2] * factor)
            _check_init_shapes(options, shape, prompts)
        init_image, size = _images(options.init_image, prompts, shape), None
        if options.mask is not None:
            _check_shapes(options, shape, prompts)
            mask = _mask(options.mask, prompts, shape)
    return Request(
        negative_prompt=options.negative_prompt,
        first_stage=options.first_stage,
        last_stage=options.last_stage,
        size=size,
        low_res=low_res,
        init_image=init_image,
        strength=options.strength,
        mask=mask,
        num_resamples=options.resample,
        first_index=options.first_index,
    )


def _check(options: "Options", stages: Sequence[config.Stage]) -> None:
    """Refuse options that don't go together. Errors: ValueError that names them as they are given.

    `Request` refuses the same by the names that it has in Python.
    """
    first = stages[0]
    for name, needed in (("mask", "init_image"), ("resample", "mask"), ("strength", "init_image")):
        value = getattr(options, name)
        if value not in (None, 1) and getattr(options, needed) is None:
            needed = needed.replace("_", "-")
            raise ValueError(f"--{name} {value} does nothing without --{needed}: give that, too")
    if options.sampler.known_pixels is not None and options.mask is None:
        raise ValueError(
            f"--known-pixels {abridge(options.sampler.known_pixels)} does nothing without --mask: "
            "give that, too"
        )
    if options.low_res is not None and not first.is_super_resolution:
        raise ValueError(
            f"--low-res {options.low_res} needs --first-stage with a super-resolution stage: "
            f"{first.name} enlarges nothing"
        )
    if options.low_res is None and first.is_super_resolution:
        raise ValueError(
            f"{first.name} enlarges images of {first.low_size} px: give --low-res, or leave out "
            "--first-stage"
        )
    if options.low_res is not None and options.size is not None:
        raise ValueError("--size and --low-res exclude each other: each sets the size")


def _check_init_shapes(options: "Options", size: tuple[int, int], prompts: int) -> None:
    """Refuse images to start from that are not of the shape of --low-res, enlarged to `size`."""
    assert options.init_image is not None
    for image in _decoded(options.init_image, prompts):
        if abs(image.width * size[0] / (image.height * size[1]) - 1) > ALIKE:
            raise ValueError(
                f"--init-image {options.init_image} has {image.width}x{image.height} pixels, "
                f"--low-res {options.low_res} is enlarged to {size[1]}x{size[0]}: they must have "
                "the same shape"
            )


def _check_shapes(options: "Options", size: tuple[int, int], prompts: int) -> None:
    """Refuse a mask that is neither of its image's shape nor of the one sampled, `size`."""
    assert options.init_image is not None  # `_check`: a mask needs one
    assert options.mask is not None
    images, masks = (_decoded(path, prompts) for path in (options.init_image, options.mask))
    for number, mask in enumerate(masks):
        wanted = [(size[1], size[0]), images[number % len(images)].size]
        ratios = [mask.width * height / (mask.height * width) for width, height in wanted]
        if all(abs(ratio - 1) > ALIKE for ratio in ratios):
            raise ValueError(
                f"--mask {options.mask} has {mask.width}x{mask.height} pixels, --init-image "
                f"{wanted[1][0]}x{wanted[1][1]}: they must have the same shape"
            )


def _mask(path: Path, prompts: int, size: tuple[int, int]) -> np.ndarray:
    """The pixels that are sampled again, bool (prompts, h, w).

    Errors: ValueError for a mask without white, or one that is white because it is transparent.
    """
    masks, files = _images(path, prompts, size, smooth=False), _files(path)
    white = is_white(masks)
    for number, file in enumerate(files):
        shown = masks[number].reshape(-1, 3)
        brightest = tuple(int(x) for x in shown[shown.sum(axis=-1).argmax()])
        if not white[number].any():
            hint = " (is it a mask of 0 and 1?)" if max(brightest) == 1 else ""
            raise ValueError(
                f"--mask {file} changes nothing: its brightest pixel is {brightest} in red, green "
                f"and blue{hint}; make white, (255, 255, 255), what shall be sampled again"
            )
        if white[number].all() and _is_transparent(file):
            raise ValueError(
                f"--mask {file} changes everything: it is transparent, which counts as white; "
                "make it opaque, black where the image stays"
            )
    return white


def _is_transparent(file: Path) -> bool:
    from PIL import Image

    from imagen_jax.data.images import decode

    with Image.open(io.BytesIO(whole_files.read_whole(file)), formats=decode.FORMATS) as opened:
        if not opened.has_transparency_data:
            return False
        return opened.convert("RGBA").getextrema()[3][0] < WHITE  # type: ignore[misc]  # of 4 bands


def count(path: Path) -> int:
    """Number of images in a folder; 1 for a file."""
    return len(_files(path))


def read_size(text: str, option: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH. Errors: ValueError that names the option."""
    from imagen_jax.sample.request import Size

    found = re.fullmatch(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})", text)
    if found is None:
        raise ValueError(
            f"{option} {shorten(text)}: wanted HEIGHTxWIDTH in pixels, such as 256x384"
        )
    return config.check_value((int(found[1]), int(found[2])), Size, option)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"no image or folder of images at {path}")
    if not path.is_dir():
        return [path]
    # Hidden are what file managers leave, such as .DS_Store.
    files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
    if not files:
        raise ValueError(f"{path} is an empty folder: put the images there, one for each prompt")
    return files


def _decoded(path: Path, prompts: int) -> list["Image"]:
    """A file's image, or those of a folder by name, one for each prompt."""
    from PIL import Image

    from imagen_jax.data.images import decode

    files = _files(path)
    if len(files) not in (1, prompts):
        raise ValueError(f"{path} has {len(files)} files for {prompts} prompts: give one for each")
    found = []
    for file in files:
        try:
            found.append(Image.fromarray(decode.decode_image(whole_files.read_whole(file))))
        except decode.UnreadableImageError as error:
            raise ValueError(f"{file} is no image that can be read: {error}") from error
    return found


def _images(
    path: Path, prompts: int, size: tuple[int, int] | None, *, smooth: bool = True
) -> np.ndarray:
    """uint8 (prompts, h, w, 3): those of `_decoded`, one for all there once.

    They are cut to the shape of `size` round their centre and resized.
    """
    found = _decoded(path, prompts)
    if size is not None:
        found = [fit_image(image, size, smooth=smooth) for image in found]
    shapes = sorted({f"{x.height}x{x.width}" for x in found})
    if len(shapes) > 1:
        raise ValueError(
            f"{path} has images of {', '.join(shapes)} pixels: they must have the same size"
        )
    images = np.stack([np.asarray(x) for x in found])
    return np.broadcast_to(images, (prompts, *images.shape[1:]))
