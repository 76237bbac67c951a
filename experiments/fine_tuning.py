"""A new word from twelve images: adapters beside fine-tuning of all weights (arXiv:2106.09685).

`imagen finetune` teaches the embedded cascade a crescent, which it does not know, in both ways. A
geometric test counts the crescents that it then samples, the shapes' oracle what it still knows,
prompt by prompt beside the cascade before; `wait4` counts seconds of CPU and memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from lib import command, crescents, image_table
from lib.image_cache import ImageCache
from lib.process_cost import measure_command
from lib.results import (
    Page,
    collect_settings,
    read_results,
    shell_command,
    write_page,
    write_results,
)
from lib.scoring import paired
from lib.step_cost import measure_step
from matplotlib.figure import Figure
from tqdm import tqdm

import imagen_jax
from imagen_jax import config
from imagen_jax.evaluate import alignment, eval_set
from imagen_jax.imagen import Imagen
from imagen_jax.io import checkpoints, run_dir

NAME = "fine_tuning"
BEFORE = "before"
RANKS = {"adapters of rank 8": 8, "all weights": 0}
DATASET = "shapes/full"
WORD = "sks crescent"
STAGES = ("base16", "sr64")
KINDS = ("drawn", "other")  # of colours and grounds that the drawings have, and of new ones
ATTRIBUTES = ("colour", "shape", "relation")
MIB = 2**20
COSTS = ("minutes", "CPU minutes", "CPU s a step", "step MiB", "trained MiB", "optimiser MiB")
TIMED = 10  # steps
SHOWN = 8  # images of a kind in the table of images


@dataclasses.dataclass(frozen=True)
class Options:
    """Lengths, and how much is judged."""

    ways: tuple[str, ...] = tuple(RANKS)
    """Ways to fine-tune."""
    cascade: str = "shapes"
    """An embedded cascade of shapes, with the stages base16 and sr64."""
    steps: config.Whole = 0
    """Training steps of each stage; 0 has `imagen finetune` choose."""
    crescents: config.Count = 64
    """Crescents sampled in the drawings' colours, and as many in others."""
    images: config.Count = 1000
    """Old prompts, of one object and of two."""
    class_prompts: config.Count = 480
    """Captions of the class, each its own scene."""
    class_images: config.Whole = 0
    """Images of the class; 0 has `imagen finetune` choose."""
    out: Path = Path("results")
    """Folder for images, table and numbers."""
    workdir: Path = Path("runs/experiments")
    """Folder for drawings, runs and sampled images; delete it after changing code."""
    seed: config.Seed = 1
    """Seed of drawings, captions and noise."""
    batch_size: config.Count = 50
    """Images sampled at once."""

    def __post_init__(self) -> None:
        config.check_options(self)
        unknown = [way for way in self.ways if way not in RANKS]
        config.require(not unknown, f"ways: there is no {unknown[:1]}; there are {list(RANKS)}")


def run(options: Options) -> None:
    """Fine-tune in both ways, sample, judge; writes fine_tuning.png, .md and .json.

    Errors: ValueError for a cascade that has no such stages; CalledProcessError for a command that
    failed.
    """
    before = dataclasses.replace(imagen_jax.load(options.cascade), dataset="")  # knows no new word
    work = options.workdir / NAME
    crescents.write_images(work / "images", word=WORD, seed=options.seed)
    settings = collect_settings(options, before.experiments[0], leave_out=("batch_size", "ways"))
    results = read_results(options.out, NAME, settings)
    ranks = {way: RANKS[way] for way in options.ways}
    for name, rank in ranks.items():
        if name not in results:
            results[name] = {"costs": _train(work, rank, options), **_sizes(work, rank, before)}
            write_results(options.out, NAME, settings, results)
    cascades = {BEFORE: before} | {n: _fine_tuned(work, r, before) for n, r in ranks.items()}
    exam = eval_set.draw_eval_set(
        DATASET, "validation", count=options.images, seed=options.seed, size=64
    )
    rows = _judge(cascades, exam, results, options)
    write_results(options.out, NAME, settings, results)
    _save_tables(rows, exam, options)
    write_page(options.out, NAME, _page(results, options), made_by=shell_command(NAME, options))


def shared(found: Sequence[bool | None], before: Sequence[bool | None]) -> dict[str, int | float]:
    """What `Paired` holds, of the captions that both images could be judged on (not None)."""
    both = [pair for pair in zip(found, before, strict=True) if None not in pair]
    after, first = (np.array(side, bool) for side in zip(*both, strict=True))
    return dataclasses.asdict(paired(after, first))


def _folder(work: Path, rank: int) -> Path:
    return work / (f"rank{rank}" if rank else "whole")


def _train(work: Path, rank: int, options: Options) -> dict[str, Any]:
    """Costs of the whole command, and of a step of each stage's training alone."""
    out = _folder(work, rank)
    shutil.rmtree(out, ignore_errors=True)  # a part of a command would cost less
    drawn = eval_set.draw_eval_set(
        DATASET, "train", count=options.class_prompts, seed=options.seed, size=16
    )
    whole = measure_command(
        *("finetune", str(work / "images"), "--cascade", options.cascade),
        *("--prompt", f"a {WORD}", "--class", *drawn.captions, "--stages", *STAGES),
        *("--lora-rank", str(rank), "--steps", str(options.steps), "--out", str(out)),
        *("--seed", str(options.seed), "--class-images", str(options.class_images)),
    )
    runs = {stage: run_dir.read_config(out / stage) for stage in STAGES}
    return {
        "command": dataclasses.asdict(whole),
        **{s: dataclasses.asdict(measure_step(run, steps=TIMED)) for s, run in runs.items()},
    }


def _sizes(work: Path, rank: int, before: Imagen) -> dict[str, Any]:
    """Bytes of the parameters that are trained, of the optimiser's state, and of a network."""
    found: dict[str, Any] = {}
    for stage in STAGES:
        saved = checkpoints.Checkpoints(_folder(work, rank) / stage, read_only=True)
        step = saved.latest()
        assert step is not None
        shapes = saved.shapes(step)
        size = {
            part: 4 * sum(math.prod(s) for n, s in shapes.items() if n.startswith(f"{part}/"))
            for part in ("params", "opt_state")
        }
        trained = next(x for x in before.stages if x.stage.name == stage)
        network = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(trained.device_params()))
        found[stage] = {**size, "network": network, "steps": step}
    return {"bytes": found}


def _fine_tuned(work: Path, rank: int, before: Imagen) -> Imagen:
    out = _folder(work, rank)
    if rank:
        adapted = before
        for stage in STAGES:
            adapted = imagen_jax.with_lora(adapted, out / stage)
        return adapted
    trained = {stage: imagen_jax.load(out / stage).stages[0] for stage in STAGES}
    stages = tuple(trained.get(x.stage.name, x) for x in before.stages)
    return dataclasses.replace(before, stages=stages)


def _judge(
    cascades: Mapping[str, Imagen],
    exam: eval_set.EvalSet,
    results: dict[str, Any],
    options: Options,
) -> dict[str, np.ndarray]:
    """Fill in the shares, and return a row of images of each cascade."""
    kinds = {
        "drawn": _cycle(crescents.drawn(), options.crescents),
        "other": _cycle(crescents.others(), options.crescents),
    }
    rows: dict[str, np.ndarray] = {}
    verdicts: dict[str, list[alignment.Verdict]] = {}
    for name, cascade in tqdm(cascades.items(), desc=NAME, unit="cascade"):
        entry = results.setdefault(name, {})
        cache = ImageCache(
            folder=options.workdir / NAME, seed=options.seed, batch_size=options.batch_size
        )
        shown = []
        for kind, wanted in kinds.items():
            captions = [crescent.caption(WORD) for crescent in wanted]
            images = cache.sample(cascade, captions, last_stage=STAGES[-1])
            entry[kind] = crescents.share_shown(list(images), wanted)
            shown.append(images[:SHOWN])
        images = cache.sample(cascade, exam.captions, last_stage=STAGES[-1])
        verdicts[name] = list(map(alignment.judge, images, exam.captions))
        rows[name] = np.concatenate([*shown, images[:SHOWN]])
        entry["old"] = {
            attribute: shared(*(_values(verdicts[n], attribute) for n in (name, BEFORE)))
            for attribute in ATTRIBUTES
        }
    return rows


def _values(verdicts: Sequence[alignment.Verdict], attribute: str) -> list[bool | None]:
    return [getattr(verdict, attribute) for verdict in verdicts]


def _cycle(those: Sequence[crescents.Crescent], count: int) -> list[crescents.Crescent]:
    return list(itertools.islice(itertools.cycle(those), count))


def _save_tables(rows: Mapping[str, np.ndarray], exam: eval_set.EvalSet, options: Options) -> None:
    crescents_shown = [*crescents.drawn()[:SHOWN], *crescents.others()[:SHOWN]]
    captions = [*(c.caption(WORD) for c in crescents_shown), *exam.captions[:SHOWN]]
    for part, name in enumerate((*KINDS, "old")):
        place = slice(part * SHOWN, (part + 1) * SHOWN)
        image_table.save_table(
            options.out / f"{NAME}_{name}.png",
            {kind: images[place] for kind, images in rows.items()},
            captions[place],
            side=96,
        )


def plot(results: Mapping[str, Any]) -> Figure:
    """Changes of what old prompts show, with two standard errors."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    for index, name in enumerate(name for name in results if name != BEFORE):
        found = [results[name]["old"][attribute] for attribute in ATTRIBUTES]
        axis.errorbar(
            np.arange(len(found)) + 0.2 * (index - 0.5),
            [row["difference"] for row in found],
            [2 * row["error"] for row in found],
            fmt="o",
            capsize=3,
            label=name,
        )
    axis.axhspan(-2, 2, color="gray", alpha=0.15)
    axis.set_xticks(range(len(ATTRIBUTES)), ATTRIBUTES)
    axis.set(ylabel="points more than before")
    axis.legend(fontsize=8)
    return figure


def _page(results: Mapping[str, Mapping[str, Any]], options: Options) -> Page:
    return Page(
        title="Fine-tuning",
        text=f"`imagen finetune` taught the cascade `{options.cascade}` the word `{WORD}` from "
        f"twelve drawings, with {options.class_prompts} captions of the class. "
        f"{options.crescents} crescents of the drawings' colours and as many of others were "
        "sampled at 64 px and judged by a geometric test of outlines, "
        f"{options.images} old prompts by the shapes' oracle: percent right, and the change in "
        "points with its standard error, prompt by prompt from the same noise.",
        rows=_rows(results),
        figure=plot(results),
    )


def _rows(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    rows = []
    for name in (BEFORE, *(n for n in RANKS if n in results)):
        found, costs = results[name], results[name].get("costs")
        row = {
            "": name,
            **{f"{kind} crescents": f"{found[kind]['crescents']:.0%}" for kind in KINDS},
            **{f"{kind} in their colours": f"{found[kind]['coloured']:.0%}" for kind in KINDS},
        }
        for attribute in ATTRIBUTES:
            old = found["old"][attribute]
            change = f" ({old['difference']:+.1f} ± {old['error']:.1f})" if costs else ""
            row[attribute] = f"{old['share']:.1f}{change}"
        row |= _cost_cells(costs, found.get("bytes"))
        rows.append(row)
    return rows


def _cost_cells(costs: Mapping[str, Any] | None, sizes: Mapping[str, Any] | None) -> dict[str, str]:
    """Minutes and CPU minutes of the command; of each stage a step, memory and sizes."""
    if costs is None or sizes is None:
        return dict.fromkeys(COSTS, "-")
    steps, whole = [costs[stage] for stage in STAGES], costs["command"]
    return {
        "minutes": f"{whole['seconds'] / 60:.1f}",
        "CPU minutes": f"{whole['cpu_seconds'] / 60:.1f}",
        "CPU s a step": ", ".join(f"{x['cpu_seconds']:.2f}" for x in steps),
        "step MiB": ", ".join(f"{x['peak_bytes'] / MIB:.0f}" for x in steps),
        "trained MiB": ", ".join(f"{sizes[s]['params'] / MIB:.2f}" for s in STAGES),
        "optimiser MiB": ", ".join(f"{sizes[s]['opt_state'] / MIB:.2f}" for s in STAGES),
    }


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
