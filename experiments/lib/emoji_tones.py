"""An oracle of skin tones: which colours each tone has in each style. No network is learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from imagen_jax.data.synthetic.emoji.emoji_names import TONES
from imagen_jax.types import Pixels
from lib.emoji_images import Combination

LEVELS = 32  # of each channel
SMOOTHING = 0.05  # share of images that any colour may be in or lack by chance
PART = 128  # images looked at together

Tones = tuple[int, ...]  # of a subject's persons; none for what has no skin tone
KINDS: tuple[Tones, ...] = ((), *((tone,) for tone in range(len(TONES))))


@dataclasses.dataclass(frozen=True)
class ToneOracle:
    """For each style the share of real images in which a colour occurs, by tone.

    Row 0 is of images without a tone, row 1 + t of those with the tone t alone.
    """

    shares: Mapping[str, Float64[np.ndarray, "tones colours"]]

    def judge(self, images: Pixels, styles: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """The likeliest tone, 0 to 4, of each image; -1 where its style has none.

        Shapes: images (n, h, w, 3), each judged by the colours of its style; result (n,).
        """
        found = np.full(len(images), -1)
        for style in set(styles) & set(self.shares):
            rows = np.flatnonzero(np.array(styles) == style)
            found[rows] = self.log_odds(images[rows], style, KINDS[1:]).argmax(axis=1)
        return found

    def log_odds(
        self, images: Pixels, style: str, kinds: Sequence[Tones]
    ) -> Float64[np.ndarray, "n kinds"]:
        """Log-likelihood of the colours that images have and lack, up to a constant by image.

        Where there are two persons, a colour occurs if it occurs in one of them.
        Shapes: images (n, h, w, 3); zeros where the style has no tones.
        """
        if style not in self.shares:
            return np.zeros((len(images), len(kinds)))
        shares = np.stack([self._joint(style, own) for own in kinds])
        odds = (np.log(shares) - np.log1p(-shares)).T.astype(np.float32)
        parts = [images[start : start + PART] for start in range(0, len(images), PART)]
        found = [colours_present(part).astype(np.float32) @ odds for part in parts]
        return np.concatenate(found) + np.log1p(-shares).sum(axis=1)

    def _joint(self, style: str, tones: Tones) -> Float64[np.ndarray, " colours"]:
        rows = self.shares[style][[1 + tone for tone in tones] or [0]]
        joint = 1 - np.prod(1 - rows, axis=0)
        return (joint + SMOOTHING) / (1 + 2 * SMOOTHING)


def fit_tones(images: Pixels, meant: Sequence[Combination]) -> ToneOracle:
    """Count colours of real images; styles in which a tone is never drawn have no row."""
    shares = {}
    for style in dict.fromkeys(one.style for one in meant):
        rows = [
            [row for row, one in enumerate(meant) if (one.style, one.tones) == (style, kind)]
            for kind in KINDS
        ]
        if all(rows):
            shares[style] = np.stack([_share(images[chosen]) for chosen in rows])
    return ToneOracle(shares)


def colours_present(images: Pixels) -> Bool[np.ndarray, "n colours"]:
    """Whether an image has each colour, to `LEVELS` levels a channel."""
    levels = images.astype(np.int64) * LEVELS // 256
    colours = levels @ np.array([LEVELS**2, LEVELS, 1])
    found = np.zeros((len(images), LEVELS**3), bool)
    np.put_along_axis(found, colours.reshape(len(images), -1), True, axis=1)
    return found


def _share(images: Pixels) -> Float64[np.ndarray, " colours"]:
    parts = [images[start : start + PART] for start in range(0, len(images), PART)]
    counts = sum((colours_present(part).sum(axis=0) for part in parts), np.zeros(LEVELS**3))
    return counts / len(images)


def has_one_tone(meant: Sequence[Combination], oracle: ToneOracle) -> Bool[np.ndarray, " n"]:
    """Whether the tone of what is meant can be judged: one tone, in a style that draws tones."""
    return np.array([len(one.tones) == 1 and one.style in oracle.shares for one in meant], bool)
