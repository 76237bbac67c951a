"""The kernels that adapters change, by groups and patterns of their modules' names."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util

from imagen_jax import config
from imagen_jax.types import Params

SLASH = "/"
KERNEL = "/kernel"
SHOWN = 8  # modules that a refusal names
# Projections of attention: of images, and of the text that they attend to.
_ATTENTION = re.compile(r"(.*/)?(\w+_)?attn_\d+/(joined/)?(query|key|value|out)")


def kernels(params: Params) -> dict[str, Any]:
    """Return every kernel by its module's name, such as "mid/attn_0/joined/query"."""
    leaves = traverse_util.flatten_dict(params, sep=SLASH)
    return {name.removesuffix(KERNEL): x for name, x in leaves.items() if name.endswith(KERNEL)}


def select_kernels(params: Params, targets: Sequence[str]) -> dict[str, Any]:
    """Return the kernels that any of `targets` selects, by their module's name.

    A target is a group, `attention`, `dense`, `convolution` or `all`, or a pattern of names with
    `*` and `?`. Shapes may stand in for arrays.
    Errors: ValueError for a target that selects none, with some of the names that there are.
    """
    there = kernels(params)
    chosen = {target: _selected(there, target) for target in targets}
    for target, found in chosen.items():
        if not found:
            raise ValueError(
                f"lora.targets: {config.shorten(target)} selects no kernel of this network; give "
                f"attention, dense, convolution, all, or a pattern of names such as "
                f"{', '.join(sorted(there)[:SHOWN])}"
            )
    wanted = set().union(*chosen.values())
    return {name: x for name, x in there.items() if name in wanted}


def _selected(there: Mapping[str, Any], target: str) -> set[str]:
    if target == "all":
        return set(there)
    if target == "attention":
        return {name for name in there if _ATTENTION.fullmatch(name)}
    if target in ("dense", "convolution"):
        rank = 2 if target == "dense" else 4
        return {name for name, x in there.items() if x.ndim == rank}
    return set(fnmatch.filter(there, target))
