"""Table, plot and images of the experiment on emoji in several styles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from lib import emoji_neighbours, image_table
from lib.emoji_images import BY_STYLE, BY_TONE, SEEN
from lib.emoji_measures import Bench, Drawn
from lib.emoji_neighbours import Shown
from lib.results import Page, markdown_table

SHOWN, CELL = 4, 96  # captions of each group in the table of images; pixels of an image
PAIRS = {SEEN: 9, BY_TONE: 8, BY_STYLE: 8}  # prompts beside their closest training images
COLUMNS = {
    "combination": "combination",
    "combination_5": "in 5",
    "subject": "subject",
    "subject_5": "in 5 subjects",
    "style": "style",
    "tone": "tone",
    "subject_and_tone": "subject and tone",
}
NOTE = (
    "Combination: percent of images of which no other of all {combinations:,} combinations of "
    "subject, skin tone and style in the dataset is as probable; in 5: of which fewer than five "
    "are. Subject: the likeliest of {subjects:,}, by a linear discriminant analysis of oriented "
    "edges and colours of real training images ({subject:,} numbers). Style: by a network of one "
    "hidden layer on statistics of colours and edges ({style:,} numbers). Tone: by the "
    "colours that each tone has in each style, of images with one tone in a style that draws "
    "tones. Real: the same judge on the real images of the same captions, the ceiling; it was "
    "trained on those of seen captions. Fréchet: to other real images of the group. Sharpness: "
    "share of the real images'. Closest: median distance to the closest training image, a root "
    "mean square in levels of 255; own is that to the real image of the caption. Left out are "
    "images that are held out for both reasons, or for looking like another one."
)


class Target(NamedTuple):
    """What a cascade has to reach."""

    words: str
    group: str
    measured: str
    least: float
    of_ceiling: bool = False


TARGETS = (
    Target("seen: combination, percent of the ceiling", SEEN, "combination", 90, of_ceiling=True),
    Target("held-out style: subject, percent", BY_STYLE, "subject", 70),
    Target("held-out style: style, percent", BY_STYLE, "style", 90),
    Target("held-out skin tone: tone, percent", BY_TONE, "tone", 85),
    Target("held-out skin tone: subject and tone, percent", BY_TONE, "subject_and_tone", 85),
)
SHARP = 0.8  # share of the real images' sharpness, in each group


def check_targets(groups: Mapping[str, Any]) -> list[dict[str, str]]:
    """A table's rows: what has to be reached, what was, and which share of the ceiling that is."""
    rows = []
    for target in TARGETS:
        found = groups[target.group]["sampled"][target.measured]
        ceiling = groups[target.group]["real"][target.measured]
        share = 100 * found / ceiling if found is not None and ceiling else None
        value = share if target.of_ceiling else found
        rows.append(_target_row(target.words, value, target.least, _number(share)))
    sharp = min(group["sharpness"] for group in groups.values())
    rows.append(_target_row("sharpness, least of the groups", sharp, SHARP, "-", digits=2))
    return rows


def make_page(results: Mapping[str, Any], options: Mapping[str, Any], *, name: str) -> Page:
    """The page of all results."""
    judge, groups = results["judge"], results["groups"]
    counts = {**judge, **judge["parameters"]}
    real = [{"real images of": split, **_cells(shares)} for split, shares in judge["real"].items()]
    return Page(
        title="Emoji in several styles",
        text=f"The cascade `{options['cascade']}` sampled captions of images that training shows, "
        "and of combinations that it does not, whose subjects it shows otherwise; judged: images "
        f"of {options['last_stage']} at 32 px. {NOTE.format(**counts)}\n\n"
        f"{markdown_table(check_targets(groups))}\n\nThe judge on all real images of known "
        f"subjects that it was not trained on:\n\n{markdown_table(real)}\n\n"
        f"![images]({name}_images.png)\n\nSampled images, each left of the training image that is "
        f"closest to it:\n\n![closest training images]({name}_neighbours.png)",
        rows=[row for group, found in groups.items() for row in _group_rows(group, found)],
        figure=plot(groups),
    )


def plot(groups: Mapping[str, Any]) -> Figure:
    """Bars of sampled images beside those of real ones, a panel a group."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True)
    for axis, (group, found) in zip(np.atleast_1d(panels), groups.items(), strict=True):
        for shift, kind in ((-0.2, "sampled"), (0.2, "real")):
            values = [found[kind][key] or 0.0 for key in COLUMNS]
            axis.bar(np.arange(len(COLUMNS)) + shift, values, 0.4, label=kind)
        axis.set_xticks(range(len(COLUMNS)), list(COLUMNS.values()), rotation=40, ha="right")
        axis.set_title(f"{group}, {found['images']} captions", fontsize=9)
        axis.grid(alpha=0.3, axis="y")
    figure.axes[0].set(ylabel="percent of images", ylim=(0, 100))
    figure.axes[0].legend(fontsize=8)
    return figure


def save_images(file: Path, drawn: Mapping[str, Drawn]) -> None:
    """Sampled images over real ones, some captions of each group."""
    captions = [caption for one in drawn.values() for caption in one.captions[:SHOWN]]
    images = [one.images[:SHOWN] for one in drawn.values()]
    side = images[0].shape[1]
    pairs = zip(drawn.values(), images, strict=True)
    real = [one.real.select(range(len(some))).at(side) for one, some in pairs]
    rows = {"sampled": np.concatenate(images), "real": np.concatenate(real)}
    image_table.save_table(file, rows, captions, side=CELL)


def save_neighbours(file: Path, drawn: Mapping[str, Drawn], bench: Bench) -> None:
    """Sampled images beside the training images that are closest to them."""
    shown = []
    for group, count in PAIRS.items():
        one, train = drawn[group], bench.train
        sampled, real = one.neighbours(train, seen=group == SEEN)
        for row, prompt in enumerate(one.captions[:count]):
            closest = train.select([sampled.rows[row]])
            shown.append(
                Shown(
                    one.images[row],
                    closest.at(max(one.images.shape[1], 32))[0],
                    prompt,
                    closest.captions[0][0],
                    float(sampled.distances[row]),
                    float(real.distances[row]),
                    group,
                )
            )
    emoji_neighbours.save_pairs(file, shown)


def _group_rows(group: str, found: Mapping[str, Any]) -> list[dict[str, str]]:
    near = found["neighbours"]
    looks = {
        "sampled": (found.get("frechet"), found["sharpness"], near["sampled"], near["own"]),
        "real": (found.get("frechet_real"), 1.0, near["real"], None),
    }
    return [
        {
            "captions": group,
            "images": f"{kind}, {found['images']}",
            **_cells(found[kind]),
            "Fréchet": _number(distance, 2),
            "sharpness": _number(sharp, 2),
            "closest": _number(closest),
            "own": _number(own),
        }
        for kind, (distance, sharp, closest, own) in looks.items()
    ]


def _cells(shares: Mapping[str, float | None]) -> dict[str, str]:
    return {words: _number(shares[key]) for key, words in COLUMNS.items()}


def _target_row(
    words: str, value: float | None, least: float, share: str, *, digits: int = 1
) -> dict[str, str]:
    reached = value is not None and value >= least
    return {
        "target": words,
        "at least": _number(least, digits),
        "measured": _number(value, digits),
        "percent of the ceiling": share,
        "reached": "yes" if reached else "no",
    }


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
