"""Start a new run with another run's weights: `imagen train --init-from`."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from imagen_jax.io import checkpoints, safetensors
from imagen_jax.io.named_tensors import NamedTensors
from imagen_jax.io.run_dir import CONFIG, WEIGHTS, read_config
from imagen_jax.io.safetensors import Shapes
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import mesh
from imagen_jax.train.state import TrainState
from imagen_jax.types import Params

SLASH = "/"  # in names

Take = Literal["ema", "weights"]


@dataclass(frozen=True, kw_only=True)
class InitFrom:
    """Another run's weights, or an exported stage's; step and optimiser start from scratch."""

    folder: Workdir
    take: Take = "ema"  # ema: averaged ones, as parameters and EMA; weights: each as it was
    partial: bool = False  # take what fits, and initialise the rest from scratch
    tensors: NamedTensors | None = None  # those in `folder`, where it is no run of ours

    def read(self, target: Any) -> tuple[Params, str]:
        """Averaged parameters for all of these shapes, on their shardings, and a sentence.

        Nothing else is made: there is room for one network alone.
        Errors: as `initialize`.
        """
        wanted = {name: x.shape for name, x in _flat(target).items()}
        found, where = self._find(target, wanted, ("ema",))
        return _place(target, found["ema"]), f"{len(wanted)} of {len(wanted)} tensors from {where}"

    def initialize(self, state: TrainState) -> tuple[TrainState, str]:
        """The state with what was found, on its own shardings, and a sentence for people.

        Errors: FileNotFoundError for no run; ValueError that lists every tensor that is missing
        there, extra there or of another shape, unless `partial`; when no tensor fits at all.
        """
        wanted = {name: x.shape for name, x in _flat(state.params).items()}
        parts = ("params", "ema") if self.take == "weights" else ("ema",)
        found, where = self._find(state.params, wanted, parts)
        taken = [_put(getattr(state, p), found.get(p, found["ema"])) for p in ("params", "ema")]
        count = f"{len(found['ema'])} of {len(wanted)} tensors"
        state = dataclasses.replace(state, params=taken[0], ema=taken[1])
        return state, f"{count} from {where}"

    def _find(
        self, params: Params, wanted: Shapes, parts: Sequence[str]
    ) -> tuple[Mapping[str, Mapping[str, Any]], Workdir]:
        """The tensors that fit, of each part, and where they are. Errors: as `initialize`."""
        if self.tensors is not None:
            return self._named(self.tensors, wanted, self.folder)
        if isinstance(self.folder, Path) and (self.folder / WEIGHTS).is_file():
            return self._exported(wanted)
        return self._saved(params, wanted, parts)

    def _exported(self, wanted: Shapes) -> tuple[dict[str, Mapping[str, np.ndarray]], Workdir]:
        file = Path(self.folder) / WEIGHTS
        named = safetensors.read_named(file)
        shapes = {name: x.shape for name, x in named.items()}
        return self._named(NamedTensors(shapes, named.__getitem__), wanted, file)

    def _named(
        self, tensors: NamedTensors, wanted: Shapes, where: Workdir
    ) -> tuple[dict[str, Mapping[str, np.ndarray]], Workdir]:
        """The tensors that fit; they are read one by one, where they are put."""
        if self.take != "ema":
            raise ValueError(f"{where} holds averaged weights alone: give --init-take ema")
        fitting = self._fitting(tensors.shapes, wanted, where)
        shapes = {name: wanted[name] for name in fitting}
        return {"ema": NamedTensors(shapes, tensors.read)}, where

    def _saved(
        self, params: Params, wanted: Shapes, parts: Sequence[str]
    ) -> tuple[dict[str, Mapping[str, jax.Array]], Workdir]:
        self._require_whole()
        saves = checkpoints.Checkpoints(self.folder, read_only=True)
        step = saves.latest()
        if step is None:
            raise FileNotFoundError(f"{self.folder}: no complete checkpoint to begin with")
        there = saves.shapes(step)
        own = {n.removeprefix("ema/"): s for n, s in there.items() if n.startswith("ema/")}
        place = saves.folder / str(step)
        fitting = self._fitting(own, wanted, place)
        leaves = _flat(params)
        target = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for name, x in leaves.items()
            if name in fitting
        }
        nested = traverse_util.unflatten_dict(target, sep=SLASH)
        restored = saves.restore(dict.fromkeys(parts, nested), step=step)
        saves.close()
        return {part: _flat(restored[part]) for part in parts}, place

    def _require_whole(self) -> None:
        """Refuse a run whose checkpoints hold adapters alone. Errors: ValueError."""
        if not (self.folder / CONFIG).is_file():
            return
        rank = read_config(self.folder).lora.rank
        if rank:
            raise ValueError(
                f"{self.folder} is a run of adapters (lora.rank={rank}), which holds no whole "
                f"network: give what `imagen export {self.folder} --out DIR --dtype float32` "
                "makes, in which they are merged"
            )

    def _fitting(self, there: Shapes, wanted: Shapes, where: Workdir) -> list[str]:
        """Names to take. Errors: ValueError, as `initialize`."""
        fitting = [name for name, shape in wanted.items() if there.get(name) == shape]
        wrong = safetensors.tensor_mismatches(there, wanted)
        listed = "\n  ".join(wrong)
        if not fitting:
            raise ValueError(f"{where}: none of its tensors fits this config:\n  {listed}")
        if wrong and not self.partial:
            raise ValueError(
                f"{where}: the weights do not fit this config; --init-partial takes the "
                f"{len(fitting)} tensors that fit and initialises the rest:\n  {listed}"
            )
        if wrong and jax.process_index() == 0:
            taken = _count_by_group(fitting, wanted)
            print(
                f"{where}: taken, of the tensors of each part: {taken}\n"
                f"initialised from scratch or left out:\n  {listed}",
                flush=True,
            )
        return fitting


def _count_by_group(taken: Sequence[str], wanted: Shapes) -> str:
    """Name the network's parts, each with how many of its tensors are taken."""
    groups = [name.split(SLASH)[0] for name in wanted]
    found = collections.Counter(name.split(SLASH)[0] for name in taken)
    counts = collections.Counter(groups).items()
    return ", ".join(f"{group} {found[group]} of {count}" for group, count in counts)


def _place(target: Any, found: Mapping[str, Any]) -> Params:
    """The arrays found in the places of `target`; those that are on the devices stay there."""
    placed = {
        name: found[name]
        if isinstance(found[name], jax.Array)
        else mesh.to_global(found[name], x.sharding)
        for name, x in _flat(target).items()
    }
    return traverse_util.unflatten_dict(placed, sep=SLASH)


def _put(tree: Params, found: Mapping[str, np.ndarray | jax.Array]) -> Params:
    """The tree with the arrays found in their places, copied: two trees never share a buffer."""
    leaves = _flat(tree)
    for name, array in found.items():
        if isinstance(array, jax.Array):
            leaves[name] = jnp.copy(array)
        else:
            leaves[name] = mesh.to_global(array, leaves[name].sharding)
    return traverse_util.unflatten_dict(leaves, sep=SLASH)


def _flat(tree: Params) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep=SLASH)
