"""A bundle of weights that lie in other files, in the dtypes that they have there.

One tensor after another is read, digested and written: memory need not hold a whole network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.export import bundle, text_encoder
from imagen_jax.export.bundle import BundleOptions
from imagen_jax.io import atomic, run_dir, tensor_writer
from imagen_jax.io.run_dir import WEIGHTS
from imagen_jax.io.tensor_writer import Kind


@dataclass(frozen=True, kw_only=True)
class StoredStage:
    """A stage and its parameters, which are not read yet."""

    experiment: config.Experiment
    kinds: Mapping[str, Kind]  # of its parameters, by their paths in the nest
    read: Callable[[str], np.ndarray]  # one of them, in any memory order

    @property
    def bytes(self) -> int:
        """The bytes of its parameters."""
        return sum(kind.bytes for kind in self.kinds.values())

    @property
    def dtypes(self) -> set[str]:
        """The dtypes of its parameters."""
        return {str(kind.dtype) for kind in self.kinds.values()}


def write_stored(
    folder: Path, stages: Sequence[StoredStage], *, contents: BundleOptions, command: str
) -> Mapping[str, Any]:
    """Write a cascade into a new folder, as `write_bundle` does; its manifest.

    `command` is what its card says of where it is from.
    Errors: FileExistsError when `folder` exists; OSError where too little of the disk is free;
    ValueError that names a tensor whose values are not all finite.
    """
    needed = sum(stage.bytes for stage in stages)
    trained = stages[0].experiment.text
    if contents.text == "embedded":
        needed += text_encoder.count_bytes(contents.source or trained)
    atomic.check_new(folder, needed=needed)
    found: dict[str, Any] = {}
    digests: dict[str, str] = {}
    with atomic.new_folder(folder) as unfinished:
        for stage in stages:
            name = stage.experiment.stage.name
            bundle.check_name(name, list(found))
            digests[f"{name}/{WEIGHTS}"] = _write_weights(unfinished / name, stage, name)
            found[name] = _facts(unfinished / name, stage)
        facts = bundle.describe_cascade(
            stages[0].experiment,
            found,
            dtype=", ".join(sorted(set().union(*(stage.dtypes for stage in stages)))),
            text=bundle.write_text(unfinished, trained, contents),
        )
        return bundle.finish(unfinished, {**facts, "command": command}, folder.name, digests)


def _write_weights(place: Path, stage: StoredStage, name: str) -> str:
    """Write config and weights; the digest of the weights' file."""
    run_dir.write_config(place, stage.experiment)
    kinds = tensor_writer.file_order(stage.kinds)
    with tqdm(total=stage.bytes, desc=name, unit="B", unit_scale=True) as bar:
        return tensor_writer.write_tensors(
            place / WEIGHTS,
            kinds,
            map(stage.read, kinds),
            metadata={"step": "0"},
            report=bar.update,
        )


def _facts(place: Path, stage: StoredStage) -> dict[str, Any]:
    """Describe a stage as the manifest does; its weights are those that were stored."""
    return {
        "parameters": sum(int(np.prod(kind.shape)) for kind in stage.kinds.values()),
        "step": 0,
        "bytes": (place / WEIGHTS).stat().st_size,
        "deviation": {"weights": 0.0, "network": 0.0},
    }
