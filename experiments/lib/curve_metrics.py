"""Metrics of the curves: of images in memory, against real ones of the same captions or others'."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagen_jax import config
from imagen_jax.evaluate import alignment, frechet, prompt_file
from imagen_jax.evaluate.eval_set import EvalSet, balanced_eval_set
from imagen_jax.imagen import Imagen
from imagen_jax.metrics import cmmd, measure, networks
from imagen_jax.metrics.frechet import Moments, frechet_distance
from imagen_jax.metrics.networks import Devices, MetricNetwork
from imagen_jax.metrics.statistics_file import Statistics
from imagen_jax.types import Pixels
from lib import random_clip

if TYPE_CHECKING:
    from curves import Options

BATCH = 64
TITLES = {
    "shapes": "captions right in all attributes, %",
    "clip": "CLIP score",
    "fid": "FID",
    "cmmd": "CMMD",
    "frechet": "Fréchet distance on classical descriptors",
}
NOTE = (
    "shapes: captions right in all attributes, in percent, by the oracle. Others: distance to the "
    "reference's images. The last row is real images of the same captions: ceiling and floor."
)


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Prompts, and what images of them are measured by."""

    names: Sequence[str]
    prompts: Sequence[str]
    devices: Devices
    reference: Statistics
    classical: frechet.ReferenceSet | None
    real: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def measure(self, images: Pixels) -> dict[str, float]:
        """The numbers of one set of images, one for each prompt."""
        rows = _rows(self.devices, images, self.prompts)
        found: dict[str, float] = {}
        if "shapes" in self.names:
            shares = alignment.score(list(images), self.prompts)
            found["shapes"] = 100 * shares["all"][0]
        if "clip" in self.names:
            found["clip"] = 100 * float(rows[networks.CLIP].astype(np.float64).mean())
        if "fid" in self.names:
            moments = Moments.empty(rows[networks.INCEPTION].shape[1])
            assert self.reference.gaussian is not None
            gaussian = moments.add(rows[networks.INCEPTION]).gaussian()
            found["fid"] = frechet_distance(gaussian, self.reference.gaussian)
        if "cmmd" in self.names:
            assert self.reference.cmmd is not None
            found["cmmd"] = cmmd.cmmd(rows[networks.CMMD], self.reference.cmmd)
        if "frechet" in self.names:
            assert self.classical is not None
            found["frechet"] = self.classical.distance(images)
        return found


def prepare(options: Options, cascades: Mapping[str, Imagen]) -> Metrics:
    """Load prompts, networks and reference.

    Errors: ValueError for an unknown metric, or one without weights or a reference; OSError.
    """
    names = (options.x, *options.y)
    for name in names:
        config.require(name in TITLES, f"no metric {name!r}; there are {', '.join(TITLES)}")
    devices = Devices(_networks(options, names))
    size = _side(options, cascades)
    if options.prompts is not None:
        prompts = prompt_file.read_prompts(options.prompts).draw(options.images, seed=1).prompts
        config.require("frechet" not in names, "frechet is of captions of shapes: leave it out")
        return Metrics(names, prompts, devices, _given(options, devices), None)
    dataset = next(iter(cascades.values())).experiments[0].data.dataset
    exam, other = (
        balanced_eval_set(dataset, count=count, seed=seed, size=size)
        for count, seed in ((options.images, 1), (options.others, 2))
    )
    reference = _given(options, devices) if options.reference else _of(devices, other)
    classical = frechet.load_reference(other.real, exam.real)
    found = Metrics(names, exam.captions, devices, reference, classical)
    return dataclasses.replace(found, real=found.measure(exam.real))


def _networks(options: Options, names: Sequence[str]) -> list[MetricNetwork]:
    found = []
    if "fid" in names:
        config.require(options.inception is not None, "fid needs --inception")
        found.append(networks.load_inception(Path(str(options.inception))))
    if "clip" in names:
        config.require(options.clip is not None, "clip needs --clip")
        found.append(networks.load_clip(Path(str(options.clip))))
    if "cmmd" in names:
        folder = options.cmmd_clip or random_clip.write(options.workdir / "random_clip")
        found.append(networks.load_cmmd(folder))
    return found


def _side(options: Options, cascades: Mapping[str, Imagen]) -> int:
    """Pixels of the judged images. Errors: ValueError for a stage that is not there."""
    sides = {
        imagen.select_stages(last_stage=options.last_stage)[-1].stage.size
        for imagen in cascades.values()
    }
    config.require(len(sides) == 1, f"images of {sorted(sides)} px: give --last-stage")
    return sides.pop()


def _of(devices: Devices, drawn: EvalSet) -> Statistics:
    """Statistics of real images in memory."""
    rows = _rows(devices, drawn.real, drawn.captions)
    inception = rows.get(networks.INCEPTION)
    gaussian = None
    if inception is not None:
        gaussian = Moments.empty(inception.shape[1]).add(inception).gaussian()
    return Statistics(about={}, gaussian=gaussian, cmmd=rows.get(networks.CMMD))


def _given(options: Options, devices: Devices) -> Statistics:
    """Statistics of the reference that the options name."""
    config.require(bool(options.reference), "--prompts need real images: give --reference")
    opened = measure.open_reference(options.reference, Path("data"))
    with tempfile.TemporaryDirectory() as unfinished:
        return measure.Measurement(
            networks=devices.networks,
            size=None,
            batch_size=BATCH,
            keep_inception=False,
            unfinished=Path(unfinished),
            progress=lambda *_: None,
        ).reference(opened)


def _rows(devices: Devices, images: Pixels, prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """Features of images, a batch at a time."""
    parts = [
        devices.run(list(images[i : i + BATCH]), list(prompts[i : i + BATCH]), BATCH)
        for i in range(0, len(images), BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
