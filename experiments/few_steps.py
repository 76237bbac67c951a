"""Twenty steps of DPM-Solver++ against the ancestral sampler's 256 (arXiv:2211.01095).

The claim: they align with their captions equally well, to a point. Every setting of the base stage
samples the same captions from the same noise, and its verdicts are compared caption by caption.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lib import command, paired_verdicts
from lib.cascade_options import CascadeOptions
from lib.image_cache import ImageCache
from lib.paired_verdicts import Compared, Part
from lib.results import Page, collect_settings, shell_command, write_page, write_results
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.load import load

NAME = "few_steps"
REFERENCE = "ancestral, 256 steps"
SETTINGS: dict[str, dict[str, Any]] = {  # changes to the base stage's sampler
    REFERENCE: {"kind": "ancestral", "steps": 256},
    "dpmpp_2m, 20 steps": {"kind": "dpmpp_2m", "steps": 20},
    "ddim, 20 steps": {"kind": "ddim", "steps": 20},
    "ancestral, 20 steps": {"kind": "ancestral", "steps": 20},
    "dpmpp_2m, 64 steps": {"kind": "dpmpp_2m", "steps": 64},
    "ancestral, 256 steps, gamma 0": {"kind": "ancestral", "steps": 256, "stochasticity": 0.0},
}


@dataclasses.dataclass(frozen=True)
class Options(CascadeOptions):
    """Cascade, and settings of its base stage."""

    settings: tuple[str, ...] = (REFERENCE, "dpmpp_2m, 20 steps")
    """Settings of the base stage, the first of which the others are compared with."""
    images: config.Count = 600
    """Captions of combinations seen in training, and as many of held-out ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.settings if name not in SETTINGS]
        config.require(
            not unknown, f"settings: there is no {unknown[:1]}; there are {list(SETTINGS)}"
        )
        config.require(
            len(set(self.settings)) > 1, f"settings={self.settings}: one alone compares nothing"
        )


def run(options: Options) -> None:
    """Sample, judge, compare; writes few_steps.png, .md and .json.

    Errors: ValueError for a cascade that is not of shapes, or a stage that it does not have.
    """
    imagen = load(options.cascade)
    dataset = imagen.experiments[0].data.dataset
    parts = paired_verdicts.draw_parts(
        dataset, images=options.images, size=options.part, seed=options.seed
    )
    settings = collect_settings(options, imagen.experiments[0], leave_out=("batch_size",))
    verdicts: dict[str, list[bool]] = {name: [] for name in options.settings}
    results: Compared = {}
    for done, part in enumerate(tqdm(parts, desc=NAME, unit="part"), 1):
        for name, found in verdicts.items():
            found += _verdicts(imagen, part, name, options)
        results = paired_verdicts.compare(verdicts, paired_verdicts.join_groups(parts[:done]))
        write_results(options.out, NAME, settings, results)
    write_page(options.out, NAME, _page(results, options), made_by=shell_command(NAME, options))


def _verdicts(imagen: Imagen, part: Part, name: str, options: Options) -> list[bool]:
    """Verdicts of the oracle on the images that one setting samples."""
    seed = options.seed + part.seed
    cache = ImageCache(folder=options.workdir / NAME, seed=seed, batch_size=options.batch_size)
    changed = imagen.with_sampler(SETTINGS[name], stage=imagen.stages[0].stage.name)
    images = cache.sample(changed, part.captions, last_stage=options.last_stage)
    return paired_verdicts.judge(images, part.captions).tolist()


def _page(results: Compared, options: Options) -> Page:
    return Page(
        title="Few steps",
        text=f"The cascade `{options.cascade}` sampled {options.images} new captions seen in "
        "training and as many of held-out combinations with every setting of its base stage, from "
        f"the same noise; other stages as configured. Judged: images of {options.last_stage}, "
        f"right where all that the caption states is. Differences, in points, are to "
        f"{next(iter(results))}, caption by caption.",
        rows=paired_verdicts.comparison_rows(results, column="base stage"),
        figure=paired_verdicts.plot_differences(results, size=(8, 4)),
    )


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
