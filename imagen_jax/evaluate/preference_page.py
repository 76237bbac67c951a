"""A page on which people compare two sets of images of the same prompts, blind, as in DrawBench.

Fidelity is asked before the prompt is shown, then alignment. Order and sides are drawn by a seed;
the page names neither set. Its answers are downloaded as CSV, which `preferences.py` reads.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax.data.images import transforms
from imagen_jax.evaluate.prompt_file import PromptSet
from imagen_jax.io.atomic import write_atomic
from imagen_jax.metrics import image_set
from imagen_jax.metrics.image_set import ImageSet

PAGE, KEY = "index.html", "pairs.json"
FILES = (PAGE, KEY)
TEMPLATE = Path(__file__).with_suffix(".html")
MOST_BYTES = 2**28  # of all images on a page, which a browser holds in memory
SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


@dataclass(frozen=True)
class Trial:
    """A prompt and the set that stands on its left side."""

    number: int  # of the prompt, from 0
    left: str  # A or B


def arrange(count: int, *, seed: int) -> list[Trial]:
    """Draw an order of prompts, and sides: A is left for half of them, or one more or less."""
    draw = np.random.default_rng(seed)
    odd = int(draw.integers(2))
    sides = draw.permutation(np.arange(count) + odd) % 2
    return [Trial(int(n), "AB"[s]) for n, s in zip(draw.permutation(count), sides, strict=True)]


def write(
    folder: Path,
    pairs: tuple[ImageSet, ImageSet],
    prompts: PromptSet,
    *,
    seed: int,
    size: int | None = None,
) -> Path:
    """Write the page, and pairs.json, which says what A and B are. Returns the page.

    With `size` images are resized and cropped to it, else they are as they are stored.
    Errors: ValueError for sets that don't fit the prompts or each other, an image that can't be
    read, or more bytes than a page may have; OSError.
    """
    each = _check(pairs, prompts)
    trials = _trials(pairs, prompts, seed=seed, size=size)
    study = hashlib.sha256(json.dumps(trials).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    key = {
        "study": study,
        "A": pairs[0].address,
        "B": pairs[1].address,
        "seed": seed,
        "prompts": len(prompts),
        "prompts_sha256": prompts.digest(),
        "images_per_prompt": each,
    }
    write_atomic(folder / KEY, json.dumps(key, indent=2) + "\n")
    # A prompt must not end the script that it stands in.
    text = json.dumps({"id": study, "trials": trials}).replace("<", "\\u003c")
    write_atomic(folder / PAGE, TEMPLATE.read_text("utf-8").replace("@STUDY@", text).encode())
    return folder / PAGE


def _trials(
    pairs: tuple[ImageSet, ImageSet], prompts: PromptSet, *, seed: int, size: int | None
) -> list[dict[str, Any]]:
    """What the page shows of each prompt, in the order that is drawn. Errors: as `write`."""
    each = len(pairs[0]) // len(prompts)
    trials, used, sides = [], 0, set[int]()
    for trial in arrange(len(prompts), seed=seed):
        span = range(trial.number * each, (trial.number + 1) * each)
        shown = {
            name: [_data_uri(images, n, size, sides) for n in span]
            for name, images in zip("AB", pairs, strict=True)
        }
        used += sum(map(len, [*shown["A"], *shown["B"]]))
        if len(sides) > 1:
            raise ValueError(
                f"images of {min(sides)} and {max(sides)} px, which people would tell apart: give "
                "--size N, to which all are resized"
            )
        if used > MOST_BYTES:
            raise ValueError(
                f"the images take more than {MOST_BYTES:,} bytes of a page: give --size N, to "
                "which they are resized, or fewer prompts"
            )
        right = "B" if trial.left == "A" else "A"
        trials.append(
            {
                "index": trial.number,
                "category": prompts.categories[trial.number] if prompts.categories else "",
                "prompt": prompts.prompts[trial.number],
                "of_left": trial.left,
                "left": shown[trial.left],
                "right": shown[right],
            }
        )
    return trials


def _check(pairs: tuple[ImageSet, ImageSet], prompts: PromptSet) -> int:
    """Count the images of each prompt. Errors: ValueError for sets that don't fit."""
    count = len(prompts)
    for images in pairs:
        if len(images) != len(pairs[0]):
            raise ValueError(
                f"{pairs[0].address} has {len(pairs[0]):,} images, {images.address} has "
                f"{len(images):,}: give two sets of the same prompts"
            )
        if len(images) % count or len(images) < count:
            raise ValueError(
                f"{images.address} has {len(images):,} images for {count:,} prompts: give as many "
                "for each prompt, those of the first one first"
            )
        _check_captions(images, prompts.prompts)
    return len(pairs[0]) // count


def _check_captions(images: ImageSet, prompts: Sequence[str]) -> None:
    """Errors: ValueError for images that were sampled for other prompts."""
    each = len(images) // len(prompts)
    for number in range(len(images) if images.captioned else 0):
        caption, prompt = images.read(number).caption, prompts[number // each]
        if caption != prompt:
            raise ValueError(
                f"{images.address}: image {images.keys[number]} is of {caption!r}, and prompt "
                f"{number // each + 1} is {prompt!r}: give the images of these prompts"
            )


def _data_uri(images: ImageSet, number: int, size: int | None, sides: set[int]) -> str:
    """An image inside the page, once it was seen to be one; its side is added to `sides`."""
    pixels, data, _ = image_set.decode_pixels(images, number, size=size)
    sides.add(len(pixels))
    if size is not None:
        data = transforms.encode(pixels)
    kind = next((k for start, k in SIGNATURES.items() if data.startswith(start)), "image/png")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
