"""A bundle as a whole: a cascade's averaged weights, configs, text encoder and programs."""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jax.sharding import NamedSharding

from imagen_jax import config, models
from imagen_jax.export import manifest, rounding_error, stablehlo, text_encoder
from imagen_jax.export.licences import LICENCES
from imagen_jax.export.manifest import CARD, WORDS, Manifest
from imagen_jax.export.model_card import model_card
from imagen_jax.export.text_encoder import TextEncoderEntry
from imagen_jax.io import run_dir, safetensors
from imagen_jax.io.atomic import new_folder
from imagen_jax.io.run_dir import WEIGHTS
from imagen_jax.parallel import mesh
from imagen_jax.types import Params

PACKAGES = ("imagen_jax", "jax", "jaxlib", "flax", "safetensors")  # whose versions are noted


@dataclass(frozen=True, kw_only=True)
class StageCheckpoint:
    """One stage's run: its config, averaged parameters and the step they are from."""

    experiment: config.Experiment
    params: Params
    step: int


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """Options: what a bundle holds besides weights and configs."""

    text: text_encoder.Kind = "reference"
    source: config.Text | None = None  # where the text encoder is now; None: where the config says
    programs: bool = False
    words: frozenset[str] = frozenset()  # of the captions in training; prompts with others warn
    progress: bool = False  # shown on stderr while the text encoder is written


def write_bundle(
    folder: Path,
    stages: Iterable[StageCheckpoint],
    *,
    dtype: safetensors.Dtype,
    contents: BundleOptions = BundleOptions(),
) -> Mapping[str, Any]:
    """Write a cascade into a new folder, which appears complete or not at all; its manifest.

    Stages are taken one after another: the parameters of one may be freed when the next is asked
    for.
    Errors: FileExistsError when `folder` exists; ValueError for stage names that can't be folders.
    """
    with new_folder(folder) as unfinished:
        experiments: list[config.Experiment] = []
        found: dict[str, Any] = {}
        for stage in stages:
            name = stage.experiment.stage.name
            check_name(name, list(found))
            experiments.append(stage.experiment)
            found[name] = _write_stage(unfinished / name, stage, dtype, contents.programs)
        text = write_text(unfinished, experiments[0].text, contents)
        if contents.words:
            (unfinished / WORDS).write_text("\n".join(sorted(contents.words)) + "\n", "utf-8")
        facts = describe_cascade(experiments[0], found, dtype=dtype, text=text)
        return finish(unfinished, facts, folder.name)


def describe_cascade(
    first: config.Experiment, stages: Mapping[str, Any], *, dtype: str, text: TextEncoderEntry
) -> dict[str, Any]:
    """Return what a manifest says besides files; `first` is of the first stage."""
    dataset = first.data.dataset
    facts = {
        "dtype": dtype,
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "dataset": dataset,
        "text": asdict(text),
        "stages": stages,
    }
    return facts | ({"licence": LICENCES[dataset]} if dataset in LICENCES else {})


def finish(
    unfinished: Path,
    facts: Mapping[str, Any],
    name: str,
    digests: Mapping[str, str] = MappingProxyType({}),
) -> Mapping[str, Any]:
    """Write manifest and card of a folder whose other files are there; the manifest."""
    document = manifest.write_manifest(unfinished, facts, digests=digests)
    (unfinished / CARD).write_text(model_card(name, document))
    return document


def read_stage(
    stage_folder: Path, experiment: config.Experiment, listed: Manifest, sharding: NamedSharding
) -> Params:
    """One stage's parameters on the devices.

    Tensor by tensor: no more than the largest is in the host's memory. What is used are the bytes
    whose digest the manifest has, whatever became of the file since it was found.
    Errors: ValueError for weights that have changed, or don't fit, listing each tensor.
    """
    file = stage_folder / WEIGHTS
    safetensors.check_params(file, models.parameter_shapes(experiment.stage, experiment.text))
    place = functools.partial(mesh.to_global, sharding=sharding)
    params, digest = safetensors.load_with_digest(file, place=place)
    listed.check_digest(_listed_as(stage_folder), digest)
    return params


def inspect_bundle(
    stage_folder: Path, experiment: config.Experiment, listed: Manifest
) -> tuple[int, str]:
    """The step that a stage's weights are from, and what tells them from others.

    That they fit their config is looked at where another version of this package wrote them, else
    when they are read: tracing the network takes half a second.
    Errors: ValueError for weights that don't fit, listing each tensor, or without their step.
    """
    file = stage_folder / WEIGHTS
    step = safetensors.read_metadata(file).get("step", "")
    if not (step.isascii() and step.isdecimal()):
        raise ValueError(f"{file} does not say its step; write it with `imagen export`")
    if listed.version != metadata.version(PACKAGES[0]):
        safetensors.check_params(file, models.parameter_shapes(experiment.stage, experiment.text))
    return int(step), listed.files[_listed_as(stage_folder)].sha256


def _listed_as(stage_folder: Path) -> str:
    return f"{os.path.basename(os.path.realpath(stage_folder))}/{WEIGHTS}"


def check_name(name: str, others: Sequence[str]) -> None:
    """Refuse a stage's name that is another folder's in a bundle, by a ValueError."""
    if name in (text_encoder.FOLDER, *others):
        raise ValueError(
            f"stage {name!r} can't be a folder beside {[*others, text_encoder.FOLDER]}: each stage "
            f"needs "
            "a name that a folder can have alone"
        )


def _write_stage(
    place: Path, stage: StageCheckpoint, dtype: safetensors.Dtype, with_program: bool
) -> dict[str, Any]:
    """Config, weights and program; what the manifest says of them."""
    experiment, file = stage.experiment, place / WEIGHTS
    run_dir.write_config(place, experiment)
    safetensors.save_params(file, stage.params, dtype=dtype, metadata={"step": str(stage.step)})
    facts = {
        "parameters": models.count_parameters(stage.params),
        "step": stage.step,
        "bytes": file.stat().st_size,
        "deviation": rounding_error.measure_rounding(
            stage.params, safetensors.load_params(file), experiment
        ),
    }
    if with_program:
        program = stablehlo.export_sampling(experiment, safetensors.read_dtypes(file))
        described = stablehlo.write_program(place / stablehlo.SAMPLE, program)
        facts["program"] = {**described, "defaults": stablehlo.default_arguments(experiment.stage)}
    return facts


def write_text(folder: Path, trained: config.Text, contents: BundleOptions) -> TextEncoderEntry:
    """Write the text encoder as `contents` says; what the manifest says of it."""
    source = contents.source or trained
    described = text_encoder.describe_encoder(contents.text, trained, source)
    if described.kind == "embedded":
        place = folder / text_encoder.FOLDER
        text_encoder.embed_encoder(place, source, progress=contents.progress)
        if contents.programs:
            stablehlo.write_program(
                place / stablehlo.ENCODE, stablehlo.export_encoding(place, trained)
            )
    return described
