"""T5X's names: which of the encoder's parameters a tensor of a T5X checkpoint holds."""

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from imagen_jax.text.checkpoints import t5x
from imagen_jax.text.checkpoints.lazy_tensors import Layout, LazyTensor, Parameter

STACK = "encoder.encoder."  # prefix of tensors whose axis 1 runs over the layers (`scan_layers`)
ENCODER = ("encoder.", "token_embedder.")  # not the decoder, and no optimiser's slots


def layout(path: Path | str) -> tuple[str, Layout]:
    """Where a T5X checkpoint is, and the encoder's parameters in it. Nothing large is read.

    `path` and errors: as `t5x.tensors`; ValueError for a stack without layers.
    """
    where, found = t5x.tensors(path, prefixes=ENCODER)
    return where, [(stored, tuple(_parameters(stored))) for stored in found.values()]


def _parameters(stored: LazyTensor) -> Iterator[Parameter]:
    """One of the same name, or one for each layer of a stack."""
    if not stored.name.startswith(STACK):
        yield _joined_heads(stored.name, stored.shape, lambda array: array)
        return
    if len(stored.shape) < 2:
        raise ValueError(
            f"{stored.name} in {stored.where} has shape {stored.shape}, without an axis 1 for the "
            "layers"
        )
    shape = (stored.shape[0], *stored.shape[2:])
    for index in range(stored.shape[1]):
        name = f"encoder.layers_{index}.{stored.name.removeprefix(STACK)}"
        yield _joined_heads(name, shape, functools.partial(_layer, index=index))


def _layer(array: np.ndarray, *, index: int) -> np.ndarray:
    return array[:, index]


def _joined_heads(
    name: str, shape: tuple[int, ...], view: Callable[[np.ndarray], np.ndarray]
) -> Parameter:
    """Attention kernels as matrices, heads major; T5X's scalable network keeps them rank 3."""
    if ".attention." not in name or len(shape) != 3:
        return Parameter(name, shape, view)
    joins_rows = ".out." in name
    flat = (math.prod(shape[:2]), shape[2]) if joins_rows else (shape[0], math.prod(shape[1:]))
    return Parameter(name, flat, lambda array: view(array).reshape(flat))
