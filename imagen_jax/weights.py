"""Weights in one safetensors file: a nest of parameters to named tensors, and back."""

from pathlib import Path
from typing import Literal

import jax
import ml_dtypes
import numpy as np
import safetensors
from safetensors import numpy as tensors

from imagen_jax import misfits
from imagen_jax.types import Params

Dtype = Literal["bfloat16", "float32"]  # as stored; in memory weights are always float32
_DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}


def save(path: Path, params: Params, *, dtype: Dtype, metadata: dict[str, str]) -> None:
    """Write parameters, rounded to `dtype`, under their paths in the nest: "level_0/conv/kernel".

    One entry of metadata makes equal bytes each time; safetensors puts several in random order.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    # safetensors copies raw memory: an array in another order would be stored scrambled.
    named = {
        _name(where): np.asarray(leaf).astype(_DTYPES[dtype], order="C") for where, leaf in leaves
    }
    # Not save_file, which makes a file that only its owner can read.
    path.write_bytes(tensors.save(named, metadata=metadata))


def load(path: Path, like: Params) -> Params:
    """The parameters in `path` as float32 numpy arrays, nested as in `like`.

    Shapes: those of `like`, whose leaves may be ShapeDtypeStruct.
    Errors: FileNotFoundError; ValueError for a damaged file, or one that lists every tensor that is
    missing, not wanted, of another shape or of another dtype.
    """
    found = _read(path)
    wanted = {_name(where): leaf for where, leaf in jax.tree_util.tree_leaves_with_path(like)}
    wrong = [
        *misfits.listed(
            {name: x.shape for name, x in found.items()},
            {name: tuple(x.shape) for name, x in wanted.items()},
        ),
        *_wrong_dtypes(found),
    ]
    if wrong:
        raise ValueError(f"{path}: the weights do not fit this config:\n  " + "\n  ".join(wrong))
    restored = [found[name].astype(np.float32) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def named(path: Path) -> dict[str, np.ndarray]:
    """All tensors in `path` by name, as float32.

    Errors: FileNotFoundError; ValueError for a damaged file or tensors of another dtype.
    """
    found = _read(path)
    if wrong := _wrong_dtypes(found):
        raise ValueError(f"{path}: not weights of ours:\n  " + "\n  ".join(wrong))
    return {name: x.astype(np.float32) for name, x in found.items()}


def metadata(path: Path) -> dict[str, str]:
    """What `save` was given beside the parameters.

    Errors: FileNotFoundError; ValueError for a damaged file.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return tensors.load_file(path)
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error


def _wrong_dtypes(found: dict[str, np.ndarray]) -> list[str]:
    wanted = " or ".join(_DTYPES)
    return [
        f"{name} holds {x.dtype}, wanted {wanted}"
        for name, x in found.items()
        if x.dtype not in _DTYPES.values()
    ]


def _name(where: tuple[object, ...]) -> str:
    return jax.tree_util.keystr(where, simple=True, separator="/")


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a whole safetensors file ({error}); copy or export it again")
