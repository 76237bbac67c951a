"""Options of the metrics' networks, and the networks that they name: of `score` and `eval`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagen_jax import config

if TYPE_CHECKING:
    from imagen_jax.metrics.networks import MetricNetwork


@dataclasses.dataclass(frozen=True)
class MetricOptions:
    """Reference, weights and size of metrics."""

    reference: str = ""
    """Real images, in any form that `imagen score` reads; or their statistics: a folder that it
    wrote, or a .safetensors or .npz file."""
    inception: Path | None = None
    """FID's weights; precision and recall are of the same network."""
    clip: Path | None = None
    """Folder of the CLIP score's model, such as ViT-B/32's."""
    cmmd_clip: Path | None = None
    """Folder of CMMD's model, ViT-L/14 at 336 px; default: --clip."""
    size: config.Side | None = None
    """Resize the short side of each image to so many pixels, and crop its middle."""
    data_dir: Path = Path("data")
    """Folder of datasets, and of indices of tars."""


def check(options: MetricOptions, metrics: Sequence[str], *, compared: Sequence[str] = ()) -> None:
    """Refuse metrics without weights, and options that none of them reads.

    `compared` names metrics of the caller's own that read the reference.
    Errors: ValueError that names the option.
    """
    given = {
        "--inception": (options.inception, {"fid", "precision-recall"}),
        "--clip": (options.clip, {"clip"} if options.cmmd_clip else {"clip", "cmmd"}),
        "--cmmd-clip": (options.cmmd_clip, {"cmmd"}),
        "--reference": (options.reference, {"fid", "cmmd", "precision-recall", *compared}),
    }
    for option, (value, readers) in given.items():
        if value and not readers & set(metrics):
            refuse_unread(option, value, readers, metrics)
    needed = {
        "fid": ("--inception FILE", options.inception),
        "precision-recall": ("--inception FILE", options.inception),
        "clip": ("--clip FOLDER", options.clip),
        "cmmd": ("--cmmd-clip FOLDER", options.cmmd_clip or options.clip),
    }
    for metric in metrics:
        option, value = needed.get(metric, ("", ""))
        if value is None:
            raise ValueError(f"{metric} needs the weights of its network: give {option}")


def refuse_unread(option: str, value: object, readers: set[str], metrics: Sequence[str]) -> None:
    """Errors: ValueError for an option that no metric reads."""
    raise ValueError(
        f"{option} {value} is of {' and '.join(sorted(readers))}, but --metrics has "
        f"{','.join(metrics) or 'none'}: leave it out, or add one"
    )


def load(options: MetricOptions, metrics: Sequence[str]) -> list[MetricNetwork]:
    """Load the networks that the metrics need, once each. Errors: as `networks.load_inception`."""
    from imagen_jax.metrics import networks, score

    wanted = {score.NETWORKS[metric] for metric in metrics if metric in score.NETWORKS}
    found = []
    if networks.INCEPTION in wanted and options.inception:
        found.append(networks.load_inception(options.inception))
    if networks.CMMD in wanted and (folder := options.cmmd_clip or options.clip):
        found.append(networks.load_cmmd(folder))
    if networks.CLIP in wanted and options.clip:
        found.append(networks.load_clip(options.clip))
    return found
