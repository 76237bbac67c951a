"""Picture files that `imagen sample` is given, as a `Request`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from imagen_jax.sample.request import Request

WHITE = 128  # of 255: pixels of a mask from here on are painted anew
ALIKE = 0.02  # by which ratios of width to height may differ, rounded to pixels as they are


def make_request(options, stages: Sequence, prompts: int) -> "Request":
    """What the options of `imagen sample` wish, for so many prompts.

    Errors: ValueError that names an option, or the file that is no picture.
    """
    from imagen_jax.sample.request import Request

    _check(options, stages)
    last = stages[-1].size
    sides = None if options.size is None else _sides(options.size)
    picture = keep = low_res = None
    if options.picture is not None:
        picture = _pictures(options.picture, prompts, sides or (last, last))
        sides = None
    if options.mask is not None:
        shape = (last, last) if picture is None else picture.shape[1:3]
        _check_shapes(options, shape, prompts)
        keep = _keep(options.mask, prompts, shape)
    if options.low_res is not None:
        low_res = _pictures(options.low_res, prompts, None)
    return Request(
        negative=options.negative,
        start=options.start,
        sides=sides,
        low_res=low_res,
        picture=picture,
        strength=options.strength,
        keep=keep,
        repeats=options.repeats,
        first_index=options.first_index,
    )


def _check(options, stages: Sequence) -> None:
    """Refuse options that don't go together. Errors: ValueError that names them as they are given.

    `Request` refuses the same by the names that it has in Python.
    """
    first = stages[0]
    for name, needed in (("mask", "picture"), ("repeats", "mask"), ("strength", "picture")):
        value = getattr(options, name)
        if value not in (None, 1) and getattr(options, needed) is None:
            raise ValueError(f"--{name} {value} does nothing without --{needed}: give that, too")
    if options.low_res is not None and not first.is_super_resolution:
        raise ValueError(
            f"--low-res {options.low_res}: {first.name} enlarges nothing; give --start with the "
            "super-resolution stage to begin with"
        )
    if options.low_res is None and first.is_super_resolution:
        raise ValueError(
            f"{first.name} enlarges pictures of {first.low_size} px: give --low-res, or leave out "
            "--start"
        )
    for name in ("size", "picture"):
        if options.low_res is not None and getattr(options, name) is not None:
            raise ValueError(f"--{name} and --low-res exclude each other: each says the sides")


def _check_shapes(options, sides: tuple[int, int], prompts: int) -> None:
    """Refuse a mask that is neither of its picture's shape nor of the one painted, `sides`."""
    pictures, masks = (_decoded(path, prompts) for path in (options.picture, options.mask))
    for number, mask in enumerate(masks):
        wanted = [(sides[1], sides[0]), pictures[number % len(pictures)].size]
        ratios = [mask.width * height / (mask.height * width) for width, height in wanted]
        if all(abs(ratio - 1) > ALIKE for ratio in ratios):
            raise ValueError(
                f"--mask {options.mask} has {mask.width}x{mask.height} pixels, --picture "
                f"{wanted[1][0]}x{wanted[1][1]}: they must have the same shape"
            )


def _keep(path: Path, prompts: int, sides: tuple[int, int]) -> np.ndarray:
    """Where pictures stay, bool (prompts, h, w).

    Errors: ValueError for a mask without white, or one that is white because it is transparent.
    """
    masks, files = _pictures(path, prompts, sides, smooth=False), _files(path)
    white = masks.mean(axis=-1) >= WHITE
    for number, file in enumerate(files):
        shown = masks[number].reshape(-1, 3)
        brightest = tuple(int(x) for x in shown[shown.sum(axis=-1).argmax()])
        if not white[number].any():
            hint = " (is it a mask of 0 and 1?)" if max(brightest) == 1 else ""
            raise ValueError(
                f"--mask {file} repaints nothing: its brightest pixel is {brightest} in red, green "
                f"and blue{hint}; make white, (255, 255, 255), what shall be painted anew"
            )
        if white[number].all() and _is_transparent(file):
            raise ValueError(
                f"--mask {file} repaints everything: it is transparent, which counts as white; "
                "make it opaque, black where the picture stays"
            )
    return ~white


def _is_transparent(file: Path) -> bool:
    from PIL import Image

    with Image.open(file) as opened:
        return opened.has_transparency_data and opened.convert("RGBA").getextrema()[3][0] < WHITE


def count(path: Path) -> int:
    """Pictures in a folder; 1 for a file."""
    return len(_files(path))


def _sides(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})", text)
    if found is None:
        raise ValueError(f"--size {text!r}: wanted HEIGHTxWIDTH in pixels, such as 256x384")
    return int(found[1]), int(found[2])


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"no picture or folder of pictures at {path}")
    if not path.is_dir():
        return [path]
    # Hidden are what file managers leave, such as .DS_Store.
    files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
    if not files:
        raise ValueError(f"{path} is an empty folder: put the pictures there, one for each prompt")
    return files


def _decoded(path: Path, prompts: int) -> list["Image"]:
    """A file's picture, or a folder's, by name, one for each prompt."""
    from PIL import Image

    from imagen_jax.data.images import decode

    files = _files(path)
    if len(files) not in (1, prompts):
        raise ValueError(f"{path} has {len(files)} files for {prompts} prompts: give one for each")
    found = []
    for file in files:
        try:
            found.append(Image.fromarray(decode.decode_image(file.read_bytes())))
        except decode.UnreadableImageError as error:
            raise ValueError(f"{file} is no picture that can be read: {error}") from error
    return found


def _pictures(
    path: Path, prompts: int, sides: tuple[int, int] | None, *, smooth: bool = True
) -> np.ndarray:
    """uint8 (prompts, h, w, 3): those of `_decoded`, one for all there once.

    They are cut to the shape of `sides` round their centre and resized.
    """
    from PIL import Image, ImageOps

    found = _decoded(path, prompts)
    if sides is not None:
        how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        found = [ImageOps.fit(picture, (sides[1], sides[0]), how) for picture in found]
    shapes = sorted({f"{x.height}x{x.width}" for x in found})
    if len(shapes) > 1:
        raise ValueError(
            f"{path} has pictures of {', '.join(shapes)} pixels: they must have the same sides"
        )
    pictures = np.stack([np.asarray(x) for x in found])
    return np.broadcast_to(pictures, (prompts, *pictures.shape[1:]))
