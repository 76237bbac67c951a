"""Real emoji in several styles as arrays, with what their captions mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from imagen_jax.data.images.decode import decode_image
from imagen_jax.data.synthetic.emoji import emoji_names, style_splits, styles_dataset
from imagen_jax.image import area_downsample
from imagen_jax.types import Pixels

SIDE = 32  # at which images are judged, whatever the stage
SEEN, BY_TONE, BY_STYLE = "seen", "held out by skin tone", "held out by style"
REASONS = {BY_TONE: style_splits.TONE, BY_STYLE: style_splits.STYLE}  # what the dataset calls them


class Combination(NamedTuple):
    """What a caption states: a subject without skin tone, its tones 0 to 4, and a style."""

    subject: str
    tones: tuple[int, ...]
    style: str


@dataclasses.dataclass(frozen=True)
class RealEmoji:
    """Examples of a split: images, captions and meanings by row."""

    images: Pixels  # at SIDE
    captions: tuple[tuple[str, ...], ...]  # the main one first
    meant: tuple[Combination, ...]
    reasons: tuple[str, ...]  # why they are held out
    rows: tuple[int, ...]  # their numbers in the split
    open_image: Callable[[int], bytes]  # of such a number, as it is stored

    def select(self, rows: Sequence[int] | np.ndarray) -> RealEmoji:
        """Some rows, in this order."""
        chosen = [int(row) for row in rows]
        return RealEmoji(
            self.images[chosen],
            tuple(self.captions[row] for row in chosen),
            tuple(self.meant[row] for row in chosen),
            tuple(self.reasons[row] for row in chosen),
            tuple(self.rows[row] for row in chosen),
            self.open_image,
        )

    def of_subjects(self, known: Iterable[str]) -> RealEmoji:
        """Those whose subject is among the known ones."""
        names = set(known)
        return self.select([r for r, one in enumerate(self.meant) if one.subject in names])

    def of_group(self, group: str) -> RealEmoji:
        """Those that are held out for a group's reason alone; all of them for seen ones."""
        reason = REASONS.get(group, "")
        return self.select([row for row, found in enumerate(self.reasons) if found == reason])

    def at(self, side: int) -> Pixels:
        """The images at another side."""
        return np.stack([_shrink(self.open_image(row), side) for row in self.rows])


def read_split(split: str, data_dir: Path) -> RealEmoji:
    """A split of the dataset that `imagen data build emoji --styles` made, each image once.

    Errors: as `styles_dataset.open_styles`.
    """
    source = styles_dataset.open_styles(split, data_dir)
    examples: dict[tuple[str, str], dict[str, Any]] = {}  # what is repeated comes after all
    for example in source:
        examples.setdefault((example["emoji"], example["style"]), example)
    return RealEmoji(
        np.stack([_shrink(example["image"], SIDE) for example in examples.values()]),
        tuple(tuple(example["captions"]) for example in examples.values()),
        tuple(map(meaning, examples.values())),
        tuple(example["held_out"] for example in examples.values()),
        tuple(range(len(examples))),
        lambda row: source[row]["image"],
    )


def meaning(example: dict[str, Any]) -> Combination:
    """What an example's captions state."""
    return Combination(*emoji_names.combination(example["emoji"]), example["style"])


def at_side(images: UInt8[np.ndarray, "n h w 3"], side: int = SIDE) -> Pixels:
    """Images of a larger side, as area means.

    Errors: ValueError for a side that is no multiple.
    """
    return area_downsample(images, images.shape[1] // side if images.shape[1] >= side else 0)


def _shrink(image: bytes, side: int) -> UInt8[np.ndarray, "side side 3"]:
    pixels = decode_image(image)
    return area_downsample(pixels, len(pixels) // side)
