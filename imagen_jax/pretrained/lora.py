"""`with_lora`: a loaded cascade with adapters merged into one of its stages."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding

from imagen_jax import config, lora, models
from imagen_jax.imagen import Imagen
from imagen_jax.io import run_dir, workdir
from imagen_jax.io.workdir import Workdir
from imagen_jax.lora import files, targets
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.pretrained import locate
from imagen_jax.pretrained.deepfloyd import tensor_names
from imagen_jax.pretrained.stored_adapters import StoredAdapters, add_adapters

SHORTCUT = "/shortcut"  # of DeepFloyd's networks: a convolution of 1 x 1 in diffusers'


def with_lora(
    cascade: Imagen, path: str | Workdir, *, weight: float = 1.0, stage: str | None = None
) -> Imagen:
    """The same cascade with adapters merged into a stage, times `weight`.

    `path` is a safetensors file, a PEFT folder, or the folder of a run that trained adapters.
    Without `stage` they go to the one that they were trained for, or the only one that they fit.
    Several calls add several adapters.
    Weights are compared when they are read: other ones than a run's adapters were trained on are
    refused then, and warned of for a file that tells its own.
    Errors: FileNotFoundError for no such file; ValueError for adapters that fit no stage or
    several, an unknown stage, a weight that is not finite, or a file as `lora.read_adapters`.
    """
    weight = config.check_value(weight, config.Finite, "weight")
    place = workdir.as_path(path)
    names = [trained.stage.name for trained in cascade.stages]
    if stage is not None and stage not in names:
        raise ValueError(f"no stage {stage!r} in this cascade; it has {names}")
    if (place / run_dir.CONFIG).is_file():
        stage, stored = _of_run(place, stage, names)
    else:
        stage, stored = _of_file(Path(place), stage, cascade)
    stored = dataclasses.replace(stored, weight=weight)
    changed = [
        add_adapters(trained, stored) if trained.stage.name == stage else trained
        for trained in cascade.stages
    ]
    # Which words the adapters have seen is not known.
    return dataclasses.replace(cascade, stages=tuple(changed), dataset="", words=frozenset())


def module_names(stage: config.Stage, text: config.Text) -> Mapping[str, str]:
    """Our modules with kernels by their names in files: diffusers' ones of DeepFloyd's networks."""
    ours = targets.kernels(models.parameter_shapes(stage, text))
    if not isinstance(stage.model, config.DeepFloydUNet):
        return files.dotted_names(ours)
    levels = len(stage.model.levels)
    return {
        tensor_names.diffusers_name(f"{name}/kernel", levels=levels).removesuffix(".weight"): name
        for name in ours
    }


def is_convolution(stage: config.Stage, module: str) -> bool:
    """Tell whether one of our dense modules is a convolution in files."""
    return isinstance(stage.model, config.DeepFloydUNet) and module.endswith(SHORTCUT)


def _of_run(place: Workdir, stage: str | None, names: list[str]) -> tuple[str, StoredAdapters]:
    experiment = run_dir.read_config(place)
    if not experiment.lora.rank:
        raise ValueError(f"{place} is a run that trained all weights: sample it itself")
    trained_for = stage or experiment.stage.name
    if trained_for not in names:
        raise ValueError(
            f"{place} has adapters of stage {trained_for!r}, but this cascade has {names}: name "
            "the stage that they are for"
        )
    return trained_for, locate.open_adapters(place, experiment)[0]


def _of_file(path: Path, stage: str | None, cascade: Imagen) -> tuple[str, StoredAdapters]:
    """Read a file for each stage that it may be for, and keep the one that it fits."""
    if not path.exists():
        raise FileNotFoundError(f"no adapters at {path}: neither a file nor a folder is there")
    facts = files.read_facts(path)
    said = facts.get("stage")
    names = [trained.stage.name for trained in cascade.stages]
    wanted = [stage] if stage else [said] if said in names else names
    found: dict[str, lora.Adapters] = {}
    reasons: dict[str, str] = {}
    for trained, experiment in zip(cascade.stages, cascade.experiments, strict=True):
        if trained.stage.name not in wanted:
            continue
        shapes = models.parameter_shapes(trained.stage, experiment.text)
        try:
            adapters = lora.read_adapters(path, module_names(trained.stage, experiment.text))
            found[trained.stage.name] = lora.fit(shapes, adapters)
        except ValueError as error:
            reasons[trained.stage.name] = str(error)
    if not found:
        lines = "\n  ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(
            reasons[wanted[0]] if len(wanted) == 1 else f"{path} fits no stage:\n  {lines}"
        )
    if len(found) > 1:
        raise ValueError(f"{path} fits the stages {sorted(found)}: name the one that it is for")
    ((name, adapters),) = found.items()
    base = facts.get("base")
    stored = StoredAdapters(
        where=path,
        identity=lora.identity(adapters.weights),
        read=functools.partial(_placed, adapters),
        base=base if isinstance(base, str) else "",
    )
    return name, stored


def _placed(adapters: lora.Adapters, sharding: NamedSharding) -> lora.Adapters:
    def place(matrix: Any) -> jax.Array:
        return mesh.to_global(matrix, sharding)

    return dataclasses.replace(adapters, weights=jax.tree.map(place, adapters.weights))


def write_run(run: Workdir, file: Path) -> None:
    """Write the averaged adapters of a run to a file that diffusers and PEFT load.

    Errors: ValueError for a run without adapters; FileNotFoundError; OSError.
    """
    experiment = run_dir.read_config(run)
    if not experiment.lora.rank:
        raise ValueError(f"{run} trained all weights and has no adapters: export it as a bundle")
    stored, step = locate.open_adapters(run, experiment)
    stage = experiment.stage
    lora.write_adapters(
        file,
        jax.device_get(
            stored.read(mesh.replicated_sharding(mesh.build(auto_layout.choose_axes())))
        ),
        modules=module_names(stage, experiment.text),
        as_convolution=functools.partial(is_convolution, stage),
        facts={
            "stage": stage.name,
            "step": step,
            "base": experiment.lora.identity,
            "variance_type": "learned_range"
            if stage.diffusion.variance == "learned_range"
            else "fixed_small",
        },
    )
