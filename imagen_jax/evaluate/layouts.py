"""Folders of images as GenEval's and DPG-Bench's own programs read them.

GenEval: `00000/metadata.jsonl` with the prompt's line, `00000/samples/0000.png` and so on.
DPG-Bench: one grid of two columns a prompt, named as the prompt's file, cells without margins.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagen_jax.config.names import check_line
from imagen_jax.config.sentences import shorten
from imagen_jax.data.images import decode
from imagen_jax.evaluate.prompt_file import PromptSet
from imagen_jax.evaluate.protocols import Layout
from imagen_jax.io import image_grid, whole_files
from imagen_jax.io.atomic import make_subfolder, write_atomic

DPG_IMAGES = 4  # of a grid, at most
LONGEST = 200  # bytes of a name; files have 255, of which one that is being written takes some


def check(layout: Layout, prompts: PromptSet, each: int) -> None:
    """Refuse prompts that a layout can't be written for. Errors: ValueError."""
    if layout == "geneval" and not prompts.records:
        raise ValueError(
            "--layout geneval needs GenEval's evaluation_metadata.jsonl as --prompts: its program "
            "reads the line of each prompt"
        )
    if layout == "dpg" and not prompts.names:
        raise ValueError(
            "--layout dpg needs DPG-Bench's folder of prompts as --prompts: its program looks for "
            "images by the names of these files"
        )
    if layout == "dpg" and each not in (1, DPG_IMAGES):
        raise ValueError(f"--layout dpg: its grids have 1 or 4 images, not {each}")
    if layout == "dpg":
        for name in prompts.names:
            _check_file_name(name)


def write(
    layout: Layout, folder: Path, prompts: PromptSet, files: Sequence[Path], each: int
) -> None:
    """Write a layout of PNG files, `each` for every prompt in turn, in place of an earlier one.

    Errors: ValueError for what is no image; OSError.
    """
    for number in range(len(prompts)):
        own = files[number * each : (number + 1) * each]
        if layout == "geneval":
            _write_geneval(folder / f"{number:05d}", prompts.records[number], own)
        else:
            _write_dpg(folder / f"{prompts.names[number]}.png", own)


def _check_file_name(name: str) -> None:
    check_line(name, "--layout dpg: a name of its prompts' files")
    size = len(os.fsencode(name))
    if size > LONGEST:
        raise ValueError(
            f"--layout dpg: the name {shorten(name)} of a prompt's file has {size} bytes, more "
            f"than {LONGEST}: rename it"
        )


def _write_geneval(folder: Path, record: str, files: Sequence[Path]) -> None:
    make_subfolder(folder.parent, folder.name)
    samples = make_subfolder(folder, "samples")
    write_atomic(folder / "metadata.jsonl", record + "\n")
    for number, file in enumerate(files):
        write_atomic(samples / f"{number:04d}.png", whole_files.read_whole(file))


def _write_dpg(file: Path, files: Sequence[Path]) -> None:
    """Write a grid whose cells are read by rows."""
    images = [_read(one) for one in files]
    columns = math.isqrt(len(images))
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    file.parent.mkdir(parents=True, exist_ok=True)
    image_grid.save_image(Image.fromarray(grid), file)


def _read(file: Path) -> decode.RGB:
    """Read an image, which may be anybody's where a folder is resumed. Errors: ValueError."""
    try:
        return decode.decode_image(whole_files.read_whole(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}: delete the folder of images, or repair it") from error
