"""One training run of an experiment: its dataset and encodings are made where they are missing."""

import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagen_jax import config
from imagen_jax.data.prepare import encode, jobs
from imagen_jax.data.store.store import Store
from imagen_jax.data.synthetic.shapes import dataset
from imagen_jax.io import checkpoints, log_files, run_dir
from imagen_jax.train import loop, run_lease, writers

SHAPES = "shapes/"  # datasets that are built where they are missing
CASCADE = "shapes"  # the stores that are written have the sides of all of its stages
LINES = 4  # of a run's log, at least: speed is read from all but the first, which compiles
TIMED, TIMED_EVERY = 20, 5  # steps of a run that only measures speed; its first five compile
FREE = {  # fields that do not change the weights that a run learns
    "data": ("workers", "threads", "prefetch", "max_damaged", "examples"),
    "train": ("log_every", "save_every", "keep", "sample_every", "sample_prompts"),
    "stage": ("sampler",),
    "text": (
        "identity",
        "vocabulary",
        "dtype",
    ),  # a run takes them from its data, and refuses others
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of every experiment that trains."""

    configs: str = "shapes"
    """Cascade of configs, packaged or a folder, of which one stage is trained and varied."""
    seed: config.Seed = 1
    """Seed of captions, of sampling noise and of random encoders."""
    batch_size: config.Count = 32
    """Images sampled at once."""
    data_dir: Path = Path("data")
    """Folder of datasets and encodings; what is missing is made."""
    workdir: Path = Path("runs/experiments")
    """Folder of the runs."""
    out: Path = Path("results")
    """Folder of plot, table and numbers."""


def train(
    experiment: config.Experiment,
    workdir: Path,
    *,
    data_dir: Path,
    encoder: encode.CaptionEncoder | None = None,
    examples: int | None = None,
    hooks: Sequence[loop.Hook] = (),
) -> None:
    """Train `experiment` in `workdir`, from its newest checkpoint; nothing is done when finished.

    `encoder` is the one that `experiment.text` names, if it is loaded already; `examples` trains
    on the first ones of the dataset only.
    Errors: ValueError when `workdir` holds a run with other settings, naming them.
    """
    if not _is_done(experiment, workdir):
        options = experiment.train
        every = min(options.log_every, max(options.steps // LINES, 1))
        experiment = dataclasses.replace(
            experiment, train=dataclasses.replace(options, log_every=every)
        )
        store = pairs(experiment, data_dir=data_dir, encoder=encoder, examples=examples)
        with run_lease.hold_run(workdir):
            loop.train(experiment, workdir, store=store, hooks=hooks)


def pairs(
    experiment: config.Experiment,
    *,
    data_dir: Path,
    encoder: encode.CaptionEncoder | None = None,
    examples: int | None = None,
) -> Store:
    """The (image, encoding) pairs that `experiment` trains on; samples and encodes missing shapes.

    Errors: FileNotFoundError for another dataset that was not encoded; ValueError for another
    encoding at the same place, or `examples` of another dataset.
    """
    if not experiment.data.dataset.startswith(SHAPES):
        config.require(examples is None, f"examples={examples}: those of {SHAPES} only")
        return jobs.find_store(experiment, data_dir, None, command="imagen encode CONFIGS")
    dataset.build_shapes(experiment.data.dataset, data_dir)
    sizes = {e.stage.size for e in config.load(CASCADE)} | {experiment.stage.size}
    return encode.encode_source(
        experiment.data,
        experiment.text,
        data_dir=data_dir,
        sizes=sorted(sizes),
        encoder=encoder,
        examples=examples,
    )


def differences(there: config.Experiment, here: config.Experiment) -> dict[str, tuple[Any, Any]]:
    """The fields in which two experiments differ, by dotted name: what each holds."""
    old, new = _flat(dataclasses.asdict(there)), _flat(dataclasses.asdict(here))
    return {
        name: (old.get(name), new.get(name))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def fields(experiment: config.Experiment) -> dict[str, Any]:
    """Every field of an experiment that changes what a run learns, by dotted name."""
    flat = _flat(dataclasses.asdict(experiment))
    return {name: value for name, value in flat.items() if matters(name)}


def matters(name: str) -> bool:
    """Return whether a field, by dotted name, changes the weights that a run learns."""
    part, _, field = name.partition(".")
    return part not in ("mesh", "layout") and field.split(".")[0] not in FREE.get(part, ())


def losses(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, one a step: a run that was resumed wrote some steps twice."""
    by_step = {
        line["step"]: line
        for line in log_files.read_entries(workdir / writers.LINES, "step", "loss")
    }
    return [by_step[step] for step in sorted(by_step)]


def step_seconds(workdir: Path) -> float:
    """Seconds a training step took in a run: the median of its log, so that compiling, saving and
    whatever else disturbed single intervals do not count.
    """
    batch = run_dir.read_config(workdir).train.batch_size
    return statistics.median(batch / line["images_per_s"] for line in losses(workdir)[1:])


def measure(
    experiment: config.Experiment, *, data_dir: Path, encoder: encode.CaptionEncoder
) -> float:
    """Seconds a training step will take, from a few steps that are thrown away."""
    options = dataclasses.replace(
        experiment.train,
        steps=TIMED,
        log_every=TIMED_EVERY,
        save_every=TIMED,
        sample_every=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        short = dataclasses.replace(experiment, train=options)
        train(short, Path(folder), data_dir=data_dir, encoder=encoder)
        return step_seconds(Path(folder))


def _is_done(experiment: config.Experiment, workdir: Path) -> bool:
    """True if `workdir` holds this run, finished; another run there is refused."""
    if not (workdir / run_dir.CONFIG).is_file():
        return False
    differing = [
        f"{name}: {old!r} there, {new!r} here"
        for name, (old, new) in differences(run_dir.read_config(workdir), experiment).items()
        if matters(name)
    ]
    if differing:
        raise ValueError(
            f"{workdir} holds a run with other settings ({'; '.join(differing)}); "
            "delete it or give another --workdir"
        )
    if not (workdir / run_dir.CHECKPOINTS).is_dir():
        return False
    latest = checkpoints.Checkpoints(workdir, read_only=True).latest()
    return latest is not None and latest >= experiment.train.steps


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {}
        flat |= inner or {prefix + name: value}
    return flat
