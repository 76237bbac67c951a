"""Picture files that `imagen sample` is given, as a `Request`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from imagen_jax.sample.request import Request

WHITE = 128  # of 255: pixels of a mask from here on are painted anew


def request(options, stages: Sequence, prompts: int) -> "Request":
    """What the options of `imagen sample` wish, for so many prompts.

    Errors: ValueError that names an option, or the file that is no picture.
    """
    from imagen_jax.sample.request import Request

    last = stages[-1].size
    sides = None if options.size is None else _sides(options.size)
    picture = keep = low_res = None
    if options.picture is not None:
        picture = _pictures(options.picture, prompts, sides or (last, last))
        sides = None
    if options.mask is not None:
        shape = (last, last) if picture is None else picture.shape[1:3]
        keep = _pictures(options.mask, prompts, shape, smooth=False).mean(axis=-1) < WHITE
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
    )


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


def _pictures(
    path: Path, prompts: int, sides: tuple[int, int] | None, *, smooth: bool = True
) -> np.ndarray:
    """uint8 (prompts, h, w, 3): a file's picture for all, or a folder's, by name, one for each.

    They are cut to the shape of `sides` round their centre and resized.
    """
    from PIL import Image, ImageOps

    from imagen_jax.data import decoding

    files = _files(path)
    if len(files) not in (1, prompts):
        raise ValueError(f"{path} has {len(files)} files for {prompts} prompts: give one for each")
    found = []
    for file in files:
        try:
            picture = Image.fromarray(decoding.decode(file.read_bytes()))
        except decoding.Unreadable as error:
            raise ValueError(f"{file} is no picture that can be read: {error}") from error
        if sides is not None:
            how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
            picture = ImageOps.fit(picture, (sides[1], sides[0]), how)
        found.append(np.asarray(picture))
    if len({x.shape for x in found}) > 1:
        shapes = sorted({f"{x.shape[0]}x{x.shape[1]}" for x in found})
        raise ValueError(
            f"{path} has pictures of {', '.join(shapes)} pixels: they must have the same sides"
        )
    return np.stack(found * (prompts // len(found)))
