"""`Adapters`: changes of kernels as products of two thin matrices (LoRA, arXiv:2106.09685).

A kernel (..., i, o) becomes kernel + weight * scale * A B, with A (..., i, r) and B (r, o): a
convolution's A is a convolution to r channels and its B one of 1 x 1, as PEFT has them.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct, traverse_util

from imagen_jax import config, rng
from imagen_jax.io import checksums
from imagen_jax.lora.targets import KERNEL, SLASH, kernels, select_kernels
from imagen_jax.types import Params, RandomKey

DOWN, UP = "lora_A", "lora_B"  # PEFT's names
LISTED = 100  # modules that a refusal lists
EXACT = jax.lax.Precision.HIGHEST


@struct.dataclass
class Adapters:
    """The adapters of one network.

    `weights` is a nest as the network's, with {"lora_A", "lora_B"} in the place of kernels;
    `scales` has alpha / rank of each module.
    """

    weights: Params
    scales: Mapping[str, float] = struct.field(pytree_node=False)

    def modules(self) -> dict[str, dict[str, Any]]:
        """Return the two matrices of each module by its name."""
        found: dict[str, dict[str, Any]] = {}
        for name, matrix in traverse_util.flatten_dict(self.weights, sep=SLASH).items():
            module, _, which = name.rpartition(SLASH)
            found.setdefault(module, {})[which] = matrix
        return found


def init(params: Params, options: config.Lora, key: RandomKey) -> Adapters:
    """Return adapters that change nothing yet: A normal with variance 1 / inputs, B zero.

    Pure, so that `jax.eval_shape` and `jax.jit` apply.
    Errors: ValueError for a rank of 0, or a target that selects no kernel.
    """
    if not options.rank:
        raise ValueError("lora.rank=0 is no adapter: give a rank such as 8")
    leaves = {}
    for name, kernel in select_kernels(params, options.targets).items():
        *inputs, outputs = kernel.shape
        spread = 1 / math.sqrt(math.prod(inputs))
        drawn = jax.random.normal(rng.fold(key, name), (*inputs, options.rank))
        leaves[f"{name}/{DOWN}"] = spread * drawn
        leaves[f"{name}/{UP}"] = jnp.zeros((options.rank, outputs))
    return from_weights(traverse_util.unflatten_dict(leaves, sep=SLASH), options.scale)


def from_weights(weights: Params, scale: float) -> Adapters:
    """Return adapters of these matrices, all of one scale."""
    found = Adapters(weights=weights, scales={})
    return dataclasses.replace(found, scales=dict.fromkeys(sorted(found.modules()), scale))


def merge(params: Params, adapters: Sequence[Adapters], weights: Sequence[float]) -> Params:
    """Return the parameters with adapters added, each times its weight.

    The sum is computed in float32 and has the kernel's dtype. `params` stay as they are: they
    are the exact inverse.
    Errors: ValueError for another number of weights, or an adapter that does not fit, listing
    each module.
    """
    if len(adapters) != len(weights):
        raise ValueError(f"{len(adapters)} adapters have {len(weights)} weights: give one each")
    leaves = dict(traverse_util.flatten_dict(params, sep=SLASH))
    for one, weight in zip(adapters, weights, strict=True):
        require_fitting(params, one)
        for module, pair in one.modules().items():
            name = module + KERNEL
            kernel = leaves[name]
            change = jnp.tensordot(
                pair[DOWN].astype(jnp.float32), pair[UP].astype(jnp.float32), 1, precision=EXACT
            )
            factor = jnp.float32(weight * one.scales[module])
            leaves[name] = (kernel.astype(jnp.float32) + factor * change).astype(kernel.dtype)
    return traverse_util.unflatten_dict(leaves, sep=SLASH)


def unmerge(params: Params, adapters: Sequence[Adapters], weights: Sequence[float]) -> Params:
    """Return merged parameters without the adapters, to the rounding of the kernels' dtype.

    Errors: as `merge`.
    """
    return merge(params, adapters, [-weight for weight in weights])


def drop_inputs(adapters: Adapters, rate: float, key: RandomKey) -> Adapters:
    """Return adapters that skip a share of each kernel's inputs, the others scaled up.

    Differs from PEFT's: a step has one choice of inputs for all its images, as the adapters are a
    change of the kernel that all of them see.
    """
    if not rate:
        return adapters

    def drop(path: tuple[Any, ...], matrix: jax.Array) -> jax.Array:
        if path[-1].key != DOWN:
            return matrix
        name = jax.tree_util.keystr(path, simple=True, separator=SLASH)
        kept = jax.random.bernoulli(rng.fold(key, name), 1 - rate, (matrix.shape[-2], 1))
        return jnp.where(kept, matrix / (1 - rate), 0.0)

    dropped = jax.tree_util.tree_map_with_path(drop, adapters.weights)
    return dataclasses.replace(adapters, weights=dropped)


def identity(params: Params) -> str:
    """Return a digest of parameters, the same wherever they lie; on every process."""
    sums = sorted(checksums.compute(params).items())
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def fit(params: Params, adapters: Adapters) -> Adapters:
    """Return adapters in the layout of this network's kernels, whose shapes may stand in for them.

    A convolution of 1 x 1 is one in some files and a dense layer in others.
    Errors: ValueError as `require_fitting`.
    """
    there = {name: tuple(x.shape) for name, x in kernels(params).items()}

    def place(path: tuple[Any, ...], matrix: Any) -> Any:
        name = jax.tree_util.keystr(path[:-1], simple=True, separator=SLASH)
        which = path[-1].key
        kernel = there.get(name, ())
        wanted = (*kernel[:-1], matrix.shape[-1])
        if which == DOWN and _without_ones(wanted) == _without_ones(matrix.shape):
            return matrix.reshape(wanted)
        return matrix

    weights = jax.tree_util.tree_map_with_path(place, adapters.weights)
    found = dataclasses.replace(adapters, weights=weights)
    require_fitting(params, found)
    return found


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A matrix's shape without the extent of a convolution of 1 x 1."""
    return tuple(shape[2:]) if len(shape) == 4 and tuple(shape[:2]) == (1, 1) else tuple(shape)


def require_fitting(params: Params, adapters: Adapters) -> None:
    """Refuse adapters of another network. Errors: ValueError that lists each module."""
    there = {name: tuple(x.shape) for name, x in kernels(params).items()}
    wrong = []
    for module, pair in adapters.modules().items():
        if module not in there:
            wrong.append(f"{module} is no module with a kernel here")
            continue
        down, up, kernel = tuple(pair[DOWN].shape), tuple(pair[UP].shape), there[module]
        if (*down[:-1], *up[1:]) != kernel or down[-1] != up[0]:
            wrong.append(f"{module}: {DOWN} {down} times {UP} {up} is no change of {kernel}")
    if wrong:
        more = [f"and {len(wrong) - LISTED:,} more"] if len(wrong) > LISTED else []
        raise ValueError(
            "the adapters do not fit this network; give those that were trained on it:\n  "
            + "\n  ".join(wrong[:LISTED] + more)
        )
