"""The inference bundle, written and read: a cascade's averaged weights, configs and their hashes.

FOLDER/STAGE/config.json and FOLDER/STAGE/weights.safetensors for each stage, FOLDER/manifest.json
with the size and SHA-256 of each of these, and FOLDER/README.md, a card to be completed by hand.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagen_jax import checkpoint, config, models, weights
from imagen_jax.types import Params

WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One stage's run: its config, averaged parameters and the step they are from."""

    experiment: config.Experiment
    params: Params
    step: int


def write(folder: Path, stages: Sequence[Trained], *, dtype: weights.Dtype) -> None:
    """Write a cascade into a new folder, which appears complete or not at all.

    Errors: FileExistsError when `folder` exists; ValueError for stage names that can't be folders.
    """
    folder = folder.absolute()
    names = [stage.experiment.stage.name for stage in stages]
    if len(set(names)) < len(names) or any(Path(n).name != n or n in ("", "..") for n in names):
        raise ValueError(f"each stage needs a name that a folder can have alone; got {names}")
    if folder.exists():
        raise FileExistsError(f"{folder} exists; give another folder, or delete it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        # One level deeper: a temporary folder itself is closed to all but its owner.
        unfinished = Path(temporary) / folder.name
        for stage in stages:
            place = unfinished / stage.experiment.stage.name
            checkpoint.write_config(place, stage.experiment)
            weights.save(
                place / WEIGHTS, stage.params, dtype=dtype, metadata={"step": str(stage.step)}
            )
        manifest = _manifest(unfinished, stages, dtype)
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        (unfinished / CARD).write_text(card(folder.name, manifest))
        unfinished.rename(folder)


def read(stage_folder: Path, like: Params) -> tuple[Params, int]:
    """One stage's parameters, nested and shaped as in `like`, and the step they are from.

    Errors: ValueError for weights that don't fit, listing each tensor, or without their step.
    """
    file = stage_folder / WEIGHTS
    step = weights.metadata(file).get("step", "")
    if not step.isdecimal():
        raise ValueError(f"{file} does not say its step; write it with `imagen export`")
    return weights.load(file, like), int(step)


def verify(folder: Path) -> None:
    """Compare an exported cascade's files with its manifest.

    Errors: FileNotFoundError without a manifest; ValueError naming every file that is missing or
    has changed.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: exported weights without their {MANIFEST}")
    try:
        listed = {
            name: entry["sha256"] for name, entry in json.loads(file.read_text())["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not a manifest ({error!r}); copy or export it again") from error
    wrong = [f"{name} is missing" for name in listed if not (folder / name).is_file()]
    wrong += [
        f"{name} has changed"
        for name, expected in listed.items()
        if (folder / name).is_file() and _sha256(folder / name) != expected
    ]
    present = {f"{path.parent.name}/{WEIGHTS}" for path in folder.glob(f"*/{WEIGHTS}")}
    wrong += [f"{name} is not listed" for name in sorted(present - set(listed))]
    if wrong:
        raise ValueError(
            f"{folder} is not as {MANIFEST} says: {'; '.join(wrong)}; copy or export it again"
        )


def card(name: str, manifest: dict[str, Any]) -> str:
    """The README of an exported cascade, in Markdown."""
    rows = [
        f"| `{stage}` | {facts['parameters']:,} | {facts['step']:,} | {facts['bytes']:,} |"
        for stage, facts in manifest["stages"].items()
    ]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"An Imagen cascade, written by `imagen export` in {manifest['dtype']}: each stage's "
            "averaged weights",
            f"(`{WEIGHTS}`) and resolved config (`{checkpoint.CONFIG}`); `{MANIFEST}` has the "
            "SHA-256 of each file.",
            "",
            "| stage | parameters | step | bytes |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Text encoder: `{manifest['encoder']}`. Trained on: `{manifest['dataset']}`.",
            "",
            'Paint with `imagen sample FOLDER "..."`, or `imagen_jax.load(FOLDER)` in Python.',
            "",
        ]
    )


def _manifest(folder: Path, stages: Sequence[Trained], dtype: weights.Dtype) -> dict[str, Any]:
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    first = stages[0].experiment
    return {
        "dtype": dtype,
        "encoder": first.text.encoder,
        "dataset": first.data.dataset,
        "stages": {
            stage.experiment.stage.name: {
                "parameters": models.count(stage.params),
                "step": stage.step,
                "bytes": (folder / stage.experiment.stage.name / WEIGHTS).stat().st_size,
            }
            for stage in stages
        },
        "files": {
            path.relative_to(folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
            }
            for path in files
        },
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
