"""A score: which metrics there are, what each needs, and the one document that they become."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from imagen_jax.config.sentences import shorten
from imagen_jax.metrics.cmmd import cmmd
from imagen_jax.metrics.frechet import Gaussian, frechet_distance
from imagen_jax.metrics.networks import CLIP, CMMD, INCEPTION
from imagen_jax.metrics.precision_recall import precision_recall
from imagen_jax.metrics.statistics_file import Statistics

NETWORKS = {"fid": INCEPTION, "cmmd": CMMD, "precision-recall": INCEPTION, "clip": CLIP}
FEWEST = 2048  # images of an FID that means something
IDENTITY = {INCEPTION: "source_sha256", CMMD: "sha256"}  # of weights, by network


def parse_metrics(text: str, known: Collection[str] = tuple(NETWORKS)) -> tuple[str, ...]:
    """Metrics by their names, with commas between. Errors: ValueError for an unknown name."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in found:
        if name not in known:
            raise ValueError(f"--metrics {text}: no metric {name!r}; there are {', '.join(known)}")
    return found


def compute(
    metrics: Sequence[str], images: Statistics, reference: Statistics | None
) -> dict[str, float]:
    """Numbers by name, of the metrics that need no reference if there is none.

    Errors: ValueError for sets that can't be compared, or are too small.
    """
    found: dict[str, float] = {}
    if "clip" in metrics:
        assert images.cosines is not None
        found["clip"] = 100 * float(images.cosines.astype(np.float64).mean())
    if reference is not None:
        check_comparable(metrics, images, reference)
        for name in metrics:
            found |= _COMPARISONS.get(name, lambda *_: {})(images, reference)
    return found


def check_comparable(metrics: Sequence[str], images: Statistics, reference: Statistics) -> None:
    """Refuse a reference that lacks what a metric needs, or was made otherwise.

    Errors: ValueError that names what differs.
    """
    for name in metrics:
        for part, what in NEEDED.get(name, {}).items():
            if getattr(reference, part) is None:
                raise ValueError(
                    f"the reference {reference.about.get('file')} has no {what}, which {name} "
                    f"needs: make it again with --metrics {name}"
                )
            _check_widths(getattr(images, part), getattr(reference, part), name)
        key = NETWORKS[name]
        if key in IDENTITY and reference.about:
            _check_weights(key, images.about, reference.about)
    sides = images.about.get("side"), reference.about.get("side")
    if None not in sides and sides[0] != sides[1]:
        raise ValueError(
            f"images of {sides[0]} px and reference images of {sides[1]}: give --size N, to which "
            "both are resized and cropped"
        )


def _check_widths(ours: Any, theirs: Any, name: str) -> None:
    """Refuse features of another network. Errors: ValueError."""
    widths = [len(x.mean) if isinstance(x, Gaussian) else x.shape[1] for x in (ours, theirs)]
    if widths[0] != widths[1]:
        raise ValueError(
            f"{name}: features of {widths[0]} numbers and reference features of {widths[1]}: make "
            "the reference again with these weights"
        )


def _check_weights(key: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    name = IDENTITY[key]
    found = [
        (about.get("networks") or {}).get(key, {}).get(name, "unknown") for about in (ours, theirs)
    ]
    if theirs.get("networks") and found[0] != found[1]:
        raise ValueError(
            f"the reference was made with other weights of {key}: SHA-256 {shorten(found[1])}, now "
            f"{found[0]}: make it again with these"
        )


def warnings_of(
    metrics: Sequence[str], images: Statistics, reference: Statistics | None
) -> list[str]:
    """Sentences about what makes a score mean less than it seems."""
    found = []
    sets = {"images": images.about, "reference": reference.about if reference else {}}
    for what, about in sets.items():
        count = about.get("count")
        if "fid" in metrics and count is not None and count < FEWEST:
            found.append(
                f"{what}: an FID of {count:,}, less than {FEWEST:,}, is biased upwards: compare it "
                "with FIDs of as many alone"
            )
        if left_out := about.get("left_out"):
            found.append(f"{what}: left out were {left_out}")
    network = (images.about.get("networks") or {}).get(INCEPTION)
    if network and not network["published"]:
        found.append(
            "Inception's weights are not the published ones: these numbers compare with each "
            "other alone"
        )
    if reference is not None and not reference.about.get("networks"):
        found.append(
            "nothing is known of the reference's images, preprocessing and weights: its file has "
            "mean and covariance alone"
        )
    return found


def _fid(images: Statistics, reference: Statistics) -> dict[str, float]:
    assert images.gaussian is not None
    assert reference.gaussian is not None
    return {"fid": frechet_distance(images.gaussian, reference.gaussian)}


def _cmmd(images: Statistics, reference: Statistics) -> dict[str, float]:
    assert images.cmmd is not None
    assert reference.cmmd is not None
    return {"cmmd": cmmd(images.cmmd, reference.cmmd)}


def _precision_recall(images: Statistics, reference: Statistics) -> dict[str, float]:
    assert images.inception is not None
    assert reference.inception is not None
    return precision_recall(images.inception, reference.inception)._asdict()


_COMPARISONS: Mapping[str, Callable[[Statistics, Statistics], dict[str, float]]] = {
    "fid": _fid,
    "cmmd": _cmmd,
    "precision-recall": _precision_recall,
}
NEEDED = {  # fields of the reference's statistics
    "fid": {"gaussian": "mean and covariance of Inception's features"},
    "cmmd": {"cmmd": "CLIP embeddings"},
    "precision-recall": {"inception": "Inception features of each image"},
}
