"""The runs of a cascade: where they are, and their weights, to be read when they are needed."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding

from imagen_jax import config, export, lora, models, pretrained, rng
from imagen_jax.io import run_dir, workdir
from imagen_jax.io.workdir import Workdir
from imagen_jax.pretrained.deepfloyd import load as deepfloyd
from imagen_jax.pretrained.stored_adapters import MergedRead, ReadParams, StoredAdapters
from imagen_jax.sample.lazy_params import LazyParams
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.types import Params

MOST_RUNS = 256  # in a folder
MOST_BASES = 16  # runs of adapters that change each other's weights


def find_cascade(path: str | Workdir) -> Workdir:
    """The folder of a cascade: `path` if it is one, else the embedded cascade of that name.

    Errors: FileNotFoundError that lists the embedded cascades.
    """
    folder = workdir.as_path(path)
    if folder.is_dir():
        return folder
    if str(path) in pretrained.list_names():
        return pretrained.folder_of(str(path))
    raise FileNotFoundError(f"no cascade at {path}: the folder does not exist, and {_embedded()}")


def _embedded() -> str:
    return f"the embedded cascades are: {', '.join(pretrained.list_names()) or 'none'}"


def find_in_folder(folder: Workdir) -> list[Workdir]:
    """The folder itself, if it is a run, or the runs in it.

    Errors: FileNotFoundError where there are none.
    """
    if (folder / run_dir.CONFIG).is_file():
        return [folder]
    found = (file.parent for file in folder.glob(f"*/{run_dir.CONFIG}"))
    runs = sorted(run for run in found if not run.name.startswith("."))  # not .ipynb_checkpoints
    linked = any(isinstance(run, Path) and run.is_symlink() for run in runs)
    if (not runs or linked) and isinstance(folder, Path) and (folder / export.MANIFEST).is_file():
        export.verify_bundle(folder)  # which names what is lost, or a link
    if len(runs) > MOST_RUNS:
        raise ValueError(
            f"{folder} has {len(runs):,} folders with a {run_dir.CONFIG}, more than a cascade has "
            "stages: give the folder of one cascade, or of one run"
        )
    if not runs:
        hidden = " (this folder hides that one)" if str(folder) in pretrained.list_names() else ""
        raise FileNotFoundError(
            f"no cascade at {folder}: neither it nor a folder in it has a {run_dir.CONFIG}; "
            f"train one with `imagen train CONFIG --workdir DIR`; {_embedded()}{hidden}"
        )
    return runs


def require_no_runs(folder: Workdir) -> None:
    """Refuse runs in a folder of DeepFloyd IF's pipelines, which are a cascade without them.

    Errors: ValueError.
    """
    places = (file.parent for file in folder.glob(f"*/{run_dir.CONFIG}"))
    runs = sorted(  # a text encoder beside them has a config, too
        place.name
        for place in places
        if (place / run_dir.WEIGHTS).is_file() or (place / run_dir.CHECKPOINTS).is_dir()
    )
    if runs:
        raise ValueError(
            f"{folder} holds pipelines of DeepFloyd IF and the run {runs[0]}, which are no cascade "
            "together: move one of them away, or give the folder of the run or of a pipeline"
        )


def _is_exported(run: Workdir) -> bool:
    """True if a run's weights are exported ones, or were until their file was lost.

    Errors: ValueError when it has checkpoints too.
    """
    has_weights = (run / run_dir.WEIGHTS).is_file()
    has_checkpoints = (run / run_dir.CHECKPOINTS).is_dir()
    if has_weights and has_checkpoints:
        raise ValueError(
            f"{run} has both {run_dir.WEIGHTS} and {run_dir.CHECKPOINTS}/: move one of them away"
        )
    if not isinstance(run, Path):
        if has_weights:
            raise ValueError(f"{run}: exported weights are read from a folder here: copy them")
        return False
    listed = (_bundle_of(run) / export.MANIFEST).is_file()
    return has_weights or (listed and not has_checkpoints)


def _bundle_of(run: Workdir) -> Path:
    """The folder that an exported stage's lies in; `Path.resolve` raises for a circle of links."""
    return Path(os.path.realpath(run)).parent


def read_manifests(runs: Sequence[Workdir]) -> dict[Workdir, export.Manifest | None]:
    """Each run with the manifest that its exported files have been compared with, if any.

    Errors: ValueError for a run that has checkpoints, too, or as `export.verify_bundle`.
    """
    exported = [run for run in runs if _is_exported(run)]
    found = {place: export.verify_bundle(place) for place in {_bundle_of(run) for run in exported}}
    return {run: found[_bundle_of(run)] if run in exported else None for run in runs}


def open_bundle(listed: Mapping[Workdir, export.Manifest | None]) -> export.Manifest | None:
    """The bundle that all runs are of, if there is one."""
    first, *others = {id(manifest): manifest for manifest in listed.values()}.values()
    return None if others else first


def find_stage(address: str, stage: str) -> Workdir | None:
    """The folder of one trained stage: a run's, an exported or embedded one's, or in a cascade's.

    None where neither `address` nor a folder `stage` in it is one.
    """
    name, *inside = Path(address).parts or ("",)
    places = [workdir.as_path(address)]
    if name in pretrained.list_names():
        places.append(pretrained.folder_of(name).joinpath(*inside))
    found = (q for p in places for q in (p, p / stage) if (q / run_dir.CONFIG).is_file())
    return next(found, None)


def load_stage(
    run: Workdir, experiment: config.Experiment, listed: export.Manifest | None, *, keep: bool
) -> tuple[TrainedStage, int]:
    """One run's stage with its EMA weights, to be read when they are needed, and their step.

    Adapters that a run trained are merged into the weights that they change.
    Errors: FileNotFoundError or ValueError for weights that are not there, or don't fit.
    """
    read: ReadParams
    if listed is not None:
        step, identity = export.inspect_bundle(Path(run), experiment, listed)
        read = functools.partial(export.read_stage, Path(run), experiment, listed)
    else:
        shapes = models.parameter_shapes(experiment.stage, experiment.text)
        if experiment.lora.rank:
            adapters, step = open_adapters(run, experiment)
            base = load_base(experiment.lora, experiment.stage, where=run)
            back = f"those of {experiment.lora.base}: put the old ones back"
            identity = adapters.identity
            read = MergedRead(base.read, (dataclasses.replace(adapters, remedy=back),))
        else:
            saved, step = _open_checkpoints(run)
            identity = saved.identity({"ema": shapes}, step=step)
            read = functools.partial(_restored, saved, shapes, step)
    stored = LazyParams(identity=identity, keep=keep, read=read)
    module = models.build(experiment.stage.model)
    return TrainedStage(stage=experiment.stage, module=module, params=stored), step


def open_adapters(run: Workdir, experiment: config.Experiment) -> tuple[StoredAdapters, int]:
    """The averaged adapters of a run, to be read when they are needed, and their step.

    Errors: as `load_stage`.
    """
    network = models.parameter_shapes(experiment.stage, experiment.text)
    shapes = jax.eval_shape(lambda key: lora.init(network, experiment.lora, key), rng.root(0))
    saved, step = _open_checkpoints(run)
    identity = saved.identity({"ema": shapes.weights}, step=step)

    def read(sharding: NamedSharding) -> lora.Adapters:
        weights = _restored(saved, shapes.weights, step, sharding)
        return lora.from_weights(weights, experiment.lora.scale)

    stored = StoredAdapters(
        where=run,
        identity=identity,
        read=read,
        base=experiment.lora.identity,
        remedy=f"give the cascade that they were trained on, {experiment.lora.base}, or export "
        "them to a file by --form lora, which any weights take",
    )
    return stored, step


def load_base(options: config.Lora, stage: config.Stage, *, where: Workdir) -> LazyParams:
    """The weights that a run's adapters change.

    Errors: FileNotFoundError where they are not there any more; else as `load_stage`.
    """
    folder = find_stage(options.base, stage.name)
    if folder is None:
        pipelines = deepfloyd.find_pipelines(workdir.as_path(options.base))
        found = deepfloyd.find_pipeline(pipelines, enlarges=stage.is_super_resolution)
        if found is not None:  # in float32, as it was trained on
            return found.in_dtype("float32").lazy_params(keep=False)
        raise FileNotFoundError(
            f"{where} has adapters of {options.base}, which is no trained stage any more: put it "
            f"back, or write its place into lora.base of {where / run_dir.CONFIG}"
        )
    _require_whole_weights(options, stage, where=where)
    experiment, listed = run_dir.read_config(folder), read_manifests([folder])[folder]
    stored = load_stage(folder, experiment, listed, keep=False)[0].params
    assert isinstance(stored, LazyParams)
    return stored


def _require_whole_weights(options: config.Lora, stage: config.Stage, *, where: Workdir) -> None:
    """Refuse adapters of adapters without end, as where a run names itself.

    Errors: ValueError.
    """
    base = options.base
    for _ in range(MOST_BASES):
        folder = find_stage(options.base, stage.name)
        if folder is None:
            return
        options = run_dir.read_config(folder).lora
        if not options.rank:
            return
    raise ValueError(
        f"{where} has adapters of {base}, which has adapters of others, more than {MOST_BASES} "
        f"deep: write the place of whole weights into lora.base of {where / run_dir.CONFIG}"
    )


def _open_checkpoints(run: Workdir) -> tuple[Any, int]:
    from imagen_jax.io import checkpoints  # here: Orbax takes most of a second to import

    saved = checkpoints.Checkpoints(run, read_only=True)
    return saved, saved.latest() or 0


def _restored(saved: Any, shapes: Any, step: int, sharding: NamedSharding) -> Params:
    """The EMA weights of one of the `checkpoints.Checkpoints` saved, on the devices."""
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    return saved.restore({"ema": target}, step=step)["ema"]
