"""When does a stage that draws emoji learn what? Checkpoints of its run, judged one by one.

Each samples the same captions from the same noise: seen ones, and held-out skin tones and styles.
Beside what they show is the error of the image predicted in pure noise, which the rest grows from.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib import command, emoji_bench, emoji_errors, emoji_sampling, runs
from lib.emoji_images import SEEN
from lib.emoji_measures import measure
from lib.emoji_sampling import GROUPS, EmojiOptions
from lib.results import Page, read_results, shell_command, write_page, write_results
from matplotlib.figure import Figure

from imagen_jax import config
from imagen_jax.imagen import Imagen
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.pretrained.load import load

NAME = "emoji_curve"
MEASURED = ("combination", "subject", "style", "tone")
Point = Mapping[str, Any]  # images, hours; measures by group


@dataclasses.dataclass(frozen=True)
class Options(EmojiOptions):
    """The run of a stage that draws from text alone, and which of its checkpoints are judged."""

    cascade: str = "runs/emoji/base32"
    """A run's folder."""
    last_stage: str = "base32"
    """Name of its stage."""
    images: config.Count = 100
    """Captions of each group: seen, held out by skin tone, held out by style."""
    steps: tuple[config.Count, ...] = ()
    """Checkpoints; default: all that the run has kept."""


def run(options: Options) -> None:
    """Judge each checkpoint; writes emoji_curve.png, .md and .json.

    Errors: as `emoji_scores.run`; ValueError for a step of which the run has no checkpoint.
    """
    folder = Path(options.cascade)
    experiment = run_dir.read_config(folder)
    steps = _choose_steps(folder, options.steps)
    splits = emoji_bench.read_splits(options.data_dir)
    bench = emoji_bench.make_bench(splits, options.folder, seed=options.seed)
    names = ("cascade", "last_stage", "images", "seed", "wording")
    kept = {name: getattr(options, name) for name in names}
    kept["log_snr"] = emoji_errors.PURE_NOISE
    points = read_results(options.out, NAME, kept)
    for step in steps:
        if str(step) in points:
            continue
        with tempfile.TemporaryDirectory() as place:
            imagen = load_checkpoint(folder, step, Path(place) / folder.name)
            emoji_sampling.require_side(imagen, options.last_stage)
            points[str(step)] = {
                "images": step * experiment.train.batch_size,
                "hours": trained_hours(folder, step),
                "groups": {
                    group: measure(drawn, bench, seen=group == SEEN)
                    | {
                        "pure_noise": emoji_errors.pure_noise_error(
                            imagen, drawn, seed=options.seed
                        )
                    }
                    for group, drawn in emoji_sampling.sample_groups(imagen, splits, bench, options)
                },
            }
        write_results(options.out, NAME, kept, points)
    write_page(options.out, NAME, _page(points), made_by=shell_command(NAME, options))


def load_checkpoint(folder: Path, step: int, place: Path) -> Imagen:
    """A run as it was at a step: a copy in `place`, which has to stay until it has sampled."""
    source = folder / run_dir.CHECKPOINTS / str(step)
    shutil.copytree(source, place / run_dir.CHECKPOINTS / str(step))
    shutil.copy(folder / run_dir.CONFIG, place)
    return load(str(place))


def trained_hours(folder: Path, step: int) -> float:
    """Hours that a run took until a step, at the rates that it logged: without what stopped it."""
    batch = run_dir.read_config(folder).train.batch_size
    usual = runs.step_seconds(folder)
    seconds, before = 0.0, 0
    for line in runs.losses(folder):
        if line["step"] > step:
            break
        rate = line.get("images_per_s")
        seconds += (line["step"] - before) * (batch / rate if rate else usual)
        before = line["step"]
    return seconds / 3600


def _choose_steps(folder: Path, wanted: Sequence[int]) -> list[int]:
    """Checkpoints to judge. Errors: ValueError for one that is not there, or none."""
    found = sorted(checkpoints.Checkpoints(folder, read_only=True).steps())
    missing = sorted(set(wanted) - set(found))
    config.require(bool(found), f"{folder} has no checkpoint: train it first")
    config.require(not missing, f"steps {missing}: {folder} has checkpoints of the steps {found}")
    return sorted(wanted) or found


def _page(points: Mapping[str, Point]) -> Page:
    ordered = {step: points[step] for step in sorted(points, key=int)}
    return Page(
        title="Emoji in several styles: what is learned when",
        text="Percent of sampled images in which small classifiers of real images, and an oracle "
        "of skin tones, find what the caption says; the same captions and noise at each step. "
        "Error in pure noise: mean square, by group, of the image in [-1, 1] that is predicted at "
        f"a log-SNR of {emoji_errors.PURE_NOISE:.0f}; of the mean image: {_variances(ordered)}.",
        rows=[_row(step, point) for step, point in ordered.items()],
        figure=_plot(ordered),
    )


def _row(step: str, point: Point) -> dict[str, str]:
    row = {
        "step": f"{int(step):,}",
        "images seen": f"{point['images'] / 1000:.0f} k",
        "hours": f"{point['hours']:.1f}",
    }
    for group, found in point["groups"].items():
        shares = [found["sampled"][name] for name in MEASURED]
        said = ", ".join("-" if share is None else f"{share:.0f}" for share in shares)
        row[f"{group}: {', '.join(MEASURED)}"] = said
    errors = [found["pure_noise"]["error"] for found in point["groups"].values()]
    row["error in pure noise"] = ", ".join(f"{error:.3f}" for error in errors)
    return row | {"Fréchet, seen": f"{point['groups'][SEEN].get('frechet', float('nan')):.1f}"}


def _variances(points: Mapping[str, Point]) -> str:
    groups = next(iter(points.values()))["groups"].values()
    return ", ".join(f"{found['pure_noise']['variance']:.3f}" for found in groups)


def _plot(points: Mapping[str, Point]) -> Figure:
    """A panel for each group, a line for each measure; ceilings are dotted."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    hours = [point["hours"] for point in points.values()]
    for axis, group in zip(figure.subplots(1, len(GROUPS), sharey=True), GROUPS, strict=True):
        found = [point["groups"][group] for point in points.values()]
        for name in MEASURED:
            (line,) = axis.plot(hours, [one["sampled"][name] for one in found], "o-", label=name)
            ceiling = found[-1]["real"][name]
            if ceiling is not None:
                axis.axhline(ceiling, color=line.get_color(), linestyle=":", linewidth=1)
        axis.set(title=group, xlabel="hours", ylim=(0, 101))
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("percent of images; dotted: real images")
    figure.axes[0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
