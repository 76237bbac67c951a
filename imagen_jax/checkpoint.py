"""Checkpoints of a run: Orbax, asynchronous, restored onto any mesh, with the config inside.

A run's folder holds `config.json` and `checkpoints/<step>/{state, config}`; all of it is data, and
nothing here loads a pickle.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from imagen_jax import config

CONFIG = "config.json"
FOLDER = "checkpoints"


def write_config(workdir: Path, experiment: config.Experiment) -> None:
    """Store the resolved config of a run; `read_config` rebuilds the run from it."""
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / (CONFIG + ".tmp")
    temporary.write_text(config.to_json(experiment))
    temporary.replace(workdir / CONFIG)


def read_config(workdir: Path) -> config.Experiment:
    """The resolved config of the run in `workdir`.

    Errors: FileNotFoundError when the folder is no run; ValueError for a file that doesn't fit.
    """
    file = workdir / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{workdir} is not a training run: it has no {CONFIG}; give a folder that "
            "`imagen train --workdir` wrote"
        )
    try:
        return config.from_json(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not JSON ({error}); restore the file or train again") from error


class Checkpoints:
    """The checkpoints of one run, newest last."""

    def __init__(self, workdir: Path, *, keep: int = 1, read_only: bool = False) -> None:
        # Orbax logs several lines a save; its warnings still come through.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self.folder = workdir.absolute() / FOLDER
        if read_only and not self.folder.is_dir():
            raise FileNotFoundError(f"{workdir}: no checkpoint yet ({FOLDER}/ is missing)")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            enable_async_checkpointing=not read_only,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, experiment: config.Experiment) -> None:
        """Write `state` in the background; an earlier save that failed raises here."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                config=ocp.args.JsonSave(json.loads(config.to_json(experiment))),
            ),
            force=True,
        )

    def restore(self, target: Any, *, step: int | None = None) -> Any:
        """The state at `step` (default: the newest), onto the shardings that `target` carries.

        Shapes: target is a pytree of ShapeDtypeStruct with shardings; a part of the saved tree
        will do (the EMA alone, for sampling).
        Errors: FileNotFoundError for no checkpoint; ValueError that lists every array that differs.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise FileNotFoundError(f"{self.folder}: no complete checkpoint")
        item = self.folder / str(step) / "state"
        if not item.is_dir():
            raise FileNotFoundError(f"{item.parent}: the checkpoint is incomplete (no state/)")
        checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        with _naming(item.parent):
            saved = checkpointer.metadata(item).item_metadata.tree
        _compare(_names(saved), _names(target), where=item.parent)
        arguments = ocp.args.PyTreeRestore(
            target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )
        with _naming(item.parent):
            return checkpointer.restore(item, arguments)

    def wait(self) -> None:
        """Until the save in the background is on disk; raises if it failed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, then release Orbax's threads."""
        self._manager.close()


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Turn what Orbax says of missing or damaged files into one sentence that names the folder."""
    try:
        yield
    except (ValueError, OSError, KeyError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{folder}: the checkpoint is incomplete or damaged ({reason[:200]}); "
            "delete this folder to go on from the one before it"
        ) from error


def _names(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by name; a saved tree spells tuple positions and fields as dictionary keys."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(path): tuple(leaf.shape) for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    parts = (getattr(k, "key", getattr(k, "name", getattr(k, "idx", None))) for k in path)
    return "/".join(str(part) for part in parts)


def _compare(
    saved: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], *, where: Path
) -> None:
    """Refuse, listing every array, when the checkpoint lacks or reshapes what is wanted."""
    missing = [f"missing {n} {wanted[n]}" for n in wanted if n not in saved]
    wrong = [
        f"{n} is {saved[n]}, wanted {wanted[n]}"
        for n in wanted
        if n in saved and saved[n] != wanted[n]
    ]
    if missing or wrong:
        raise ValueError(
            f"{where}: the checkpoint does not fit this config:\n  " + "\n  ".join(missing + wrong)
        )
