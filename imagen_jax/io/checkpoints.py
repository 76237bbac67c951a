"""Checkpoints of a run: Orbax, asynchronous, restored onto any mesh, with the config inside.

A run's folder holds `config.json` and `checkpoints/<step>/{state, config, about}`; all of it is
data, and nothing here loads a pickle.
"""

import contextlib
import itertools
import json
import logging
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from imagen_jax import config
from imagen_jax.config.decode import decode
from imagen_jax.io import (
    atomic,
    checkpoint_files,
    checksums,
    json_reader,
    nonfinite_arrays,
    paths,
    removal,
)
from imagen_jax.io.checkpoint_damage import check_chunks, name_damage, require_tree
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.run_dir import CHECKPOINTS
from imagen_jax.io.safetensors import tensor_mismatches
from imagen_jax.io.workdir import Workdir, move

STATE = "state"
NAMES = ocp.path.step.standard_name_format()  # of the folders of steps
ABOUT = "about"  # fingerprint, shapes and package versions
UNFINISHED = ".orbax-checkpoint-tmp"  # how Orbax's unfinished folders end
ASIDE = "damaged"  # where checkpoints go that can't be read
PACKAGES = ("imagen_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Checkpoints:
    """The checkpoints of one run, newest last.

    Of those saved the newest `keep` stay, and every one whose step is a multiple of `keep_every`.
    """

    def __init__(
        self, workdir: Workdir, *, keep: int = 1, keep_every: int = 0, read_only: bool = False
    ) -> None:
        # Orbax logs several lines a save, and of a failure, which it raises as well, whole stacks.
        shows = os.environ.get("IMAGEN_TRACEBACK")
        logging.getLogger("absl").setLevel(logging.ERROR if shows else logging.CRITICAL)
        self.folder = (workdir.absolute() if isinstance(workdir, Path) else workdir) / CHECKPOINTS
        if isinstance(self.folder, Path):
            paths.require_text(self.folder)
            if not read_only:
                atomic.check_no_link(self.folder)
        if read_only and not self.folder.is_dir():
            raise FileNotFoundError(f"{workdir}: no checkpoint yet ({CHECKPOINTS}/ is missing)")
        policies = [preservation_policy.LatestN(keep)]
        if keep_every:
            policies.append(preservation_policy.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None
            if read_only
            else preservation_policy.AnyPreservationPolicy(policies),
            enable_async_checkpointing=not read_only,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._options = options
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        with name_damage(self.folder):
            if isinstance(self.folder, Path) and self.folder.is_dir():
                checkpoint_files.check_steps(self.folder)
            return ocp.CheckpointManager(self.folder, options=self._options)

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """All complete steps, oldest first, as they lie in the folder.

        Orbax's own list has failed ones too; asked to read it again, it forgets a running save.
        """
        return sorted(found.step for found in NAMES.find_all(self.folder))

    def save(self, step: int, state: Any, experiment: config.Experiment) -> None:
        """Write `state` in the background, with its fingerprint, config and package versions.

        Errors: what went wrong with the save before this one, as `check`.
        """
        about = {
            "fingerprint": checksums.compute(state),
            "shapes": _names(state),
            "versions": _versions(),
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                config=ocp.args.JsonSave(json.loads(config.to_json(experiment))),
                about=ocp.args.JsonSave(about),
            ),
            force=True,
        )

    def check(self) -> None:
        """Raise what went wrong in the background; costs nothing where nothing did."""
        self._manager.check_for_errors()

    def restore(self, target: Any, *, step: int | None = None) -> Any:
        """The state at `step` (default: the newest), onto the shardings that `target` carries.

        Shapes: target is a pytree of ShapeDtypeStruct with shardings; a part of the saved tree
        will do (the EMA alone, for sampling).
        Errors: FileNotFoundError for no checkpoint; ValueError that lists every array that differs
        in shape, or in a single bit from what was saved.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise FileNotFoundError(f"{self.folder}: no complete checkpoint")
        item = self.folder / str(step) / STATE
        shapes, about = self._inspect(step)
        _compare(shapes, _names(target), where=item.parent)
        checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        arguments = ocp.args.PyTreeRestore(
            target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )
        with name_damage(item.parent):
            restored = checkpointer.restore(item, arguments)
        wrong = checksums.changed_names(checksums.compute(restored), about.sums) if about else ()
        if wrong:
            raise CorruptDataError(
                f"{item.parent}: the checkpoint is damaged: {len(wrong)} arrays are not as they "
                f"were saved, such as {', '.join(wrong[:3])}"
            )
        return restored

    def identity(self, target: Any, *, step: int) -> str:
        """Name the part of a state that `target` is, unlike any other; nothing large is read.

        Errors: as `restore`, but for arrays that differ in a bit.
        """
        shapes, about = self._inspect(step)
        place = self.folder / str(step)
        _compare(shapes, _names(target), where=place)
        return str(sorted((n, about.sums[n]) for n in _names(target)) if about else place)

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """The shape of every array saved at `step`, by its name, such as `ema/stem/kernel`.

        Errors: FileNotFoundError for no such checkpoint; ValueError for a damaged one.
        """
        return self._inspect(step)[0]

    def _inspect(self, step: int) -> tuple[dict[str, tuple[int, ...]], "About | None"]:
        """Shapes, and the record written next to them. Errors: as `shapes`."""
        item = self.folder / str(step) / STATE
        if not item.is_dir():
            raise FileNotFoundError(f"{item.parent}: the checkpoint is incomplete (no {STATE}/)")
        with name_damage(item.parent):
            if isinstance(item, Path):
                checkpoint_files.check_checkpoint(item.parent)
                checkpoint_files.check_tree(item)
            checkpoint_files.check_arrays(item)
            checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
            tree = require_tree(checkpointer.metadata(item).item_metadata)
            check_chunks(tree)
            shapes = _names(tree)
            about = _about(item.parent)
        if about and (about.shapes != shapes or about.sums.keys() != shapes.keys()):
            raise CorruptDataError(
                f"{item.parent}: the checkpoint is damaged: its arrays have other shapes"
            )
        return shapes, about

    def restore_newest(self, target: Any) -> tuple[int, Any]:
        """Step and state of the newest checkpoint that is whole; 0 and None where there is none.

        Newer ones that are damaged, or hold NaN or infinity, are named, and set aside into
        `damaged/`, for inspection.
        Errors: ValueError when there are checkpoints and none is whole, which stay where they are;
        when they are of another network: its arrays differ in name or shape.
        """
        damaged: dict[int, CorruptDataError] = {}
        for step in reversed(self.steps()):
            try:
                state = self.restore(target, step=step)
                _require_finite(state, self.folder / str(step))
            except CorruptDataError as error:
                damaged[step] = error
                continue
            for number, reason in damaged.items():
                print(f"{reason}; set aside into {self._set_aside(number)}", file=sys.stderr)
            return step, state
        if damaged:
            raise ValueError(
                f"none of the {len(damaged)} checkpoints in {self.folder} is whole: put one back "
                "from a copy, or move that folder away to start again "
                f"({next(iter(damaged.values()))})"
            )
        return 0, None

    def _set_aside(self, step: int) -> Workdir:
        """Move a checkpoint out of the way."""
        self._manager.close()
        place = self.aside(step)
        if jax.process_index() == 0:
            move(self.folder / str(step), place)
        multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager = self._open()
        return place

    def aside(self, step: int) -> Workdir:
        """Find a free folder to set a checkpoint aside; an earlier one of its step may be there."""
        folder = self.folder.parent / ASIDE
        return next(
            place
            for number in itertools.count()
            if not (place := folder / (f"{step}" if not number else f"{step}-{number}")).exists()
        )

    def forget_failure(self) -> None:
        """After a failed save: what it left takes no room, and its step can be saved again."""
        if jax.process_index() == 0 and isinstance(self.folder, Path):
            for left_over in self.folder.glob(f"*{UNFINISHED}"):
                with contextlib.suppress(OSError):  # the next start tries again
                    removal.remove_folder(left_over)
        self._manager.reload()

    def wait(self) -> None:
        """Until the save in the background is on disk; raises if it failed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, then release Orbax's threads."""
        self._manager.close()


def _require_finite(state: Any, place: Workdir) -> None:
    try:
        nonfinite_arrays.require_finite(state, f"{place}: the weights of this checkpoint")
    except ValueError as error:
        raise CorruptDataError(str(error)) from error


class About(NamedTuple):
    """The record that `save` writes next to a state."""

    shapes: dict[str, tuple[int, ...]]
    sums: checksums.Fingerprint


def _about(folder: Workdir) -> About | None:
    """None in checkpoints from before it was written."""
    if not (folder / ABOUT).is_dir():
        return None
    file = folder / ABOUT / "metadata"
    fields = json_reader.read_object(file, remedy="put the checkpoint back from a copy")
    numbers = Mapping[str, tuple[int, ...]]
    shapes, sums = (decode(numbers, fields.get(n), n) for n in ("shapes", "fingerprint"))
    return About(shapes, {name: (a, b) for name, (a, b) in sums.items()})


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES}


def _names(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by name; a saved tree spells tuple positions and fields as dictionary keys."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {checksums.path_name(path): tuple(leaf.shape) for path, leaf in leaves}


def _compare(
    saved: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], *, where: Workdir
) -> None:
    """Refuse, listing every array, when the checkpoint lacks or reshapes what is wanted."""
    if wrong := tensor_mismatches(saved, wanted, extra=False):
        raise ValueError(
            f"{where}: the checkpoint does not fit this config:\n  " + "\n  ".join(wrong)
        )
