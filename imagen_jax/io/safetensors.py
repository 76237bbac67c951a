"""Weights in one safetensors file: a nest of parameters to named tensors, and back.

With int8 a kernel NAME is stored as whole numbers next to NAME.scale, a float32 number for each of
its output channels (its last axis); vectors and tables stay float32.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
import safetensors
from flax import traverse_util
from safetensors import numpy as tensors

from imagen_jax import limits
from imagen_jax.config.sentences import abridge, join_texts
from imagen_jax.io import whole_files
from imagen_jax.io.int8 import quantise_int8
from imagen_jax.io.tensor_stream import DTYPES, TensorStream
from imagen_jax.types import Params

Dtype = Literal["bfloat16", "float32", "int8"]  # as stored; in memory weights are always float32
_DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}
_NAMES = {name: str(dtype) for name, dtype in DTYPES.items()}  # by safetensors' ones
SLASH = "/"  # in names
LISTED = 1000  # tensors that a refusal lists
SHOWN = 3  # names of very many
HEADER = 2**25  # bytes; twenty thousand tensors have a tenth
SCALE = ".scale"  # ends the name of an int8 kernel's scales

Shapes = Mapping[str, tuple[int, ...]]  # by the tensor's name
Place = Callable[[np.ndarray], Any]  # of one float32 tensor; what is kept in its place


def save_params(path: Path, params: Params, *, dtype: Dtype, metadata: dict[str, str]) -> None:
    """Write parameters, rounded to `dtype`, under their paths in the nest: "level_0/conv/kernel".

    One entry of metadata makes equal bytes each time; safetensors puts several in random order.
    """
    # Not save_file, which makes a file that only its owner can read.
    path.write_bytes(tensors.save(round_params(params, dtype), metadata=metadata))


def round_params(params: Params, dtype: Dtype) -> dict[str, np.ndarray]:
    """Tensors by name, as `save` stores them."""
    named: dict[str, np.ndarray] = {}
    for where, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = _name(where)
        # safetensors copies raw memory: an array in another order would be stored scrambled.
        array = np.asarray(leaf, np.float32, order="C")
        if dtype != "int8":
            named[name] = array.astype(_DTYPES[dtype])
        elif _is_quantised(name, array.ndim):
            named[name], named[name + SCALE] = quantise_int8(array, tuple(range(array.ndim - 1)))
        else:
            named[name] = array
    return named


def as_float32(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors as they are stored to float32 parameters by name; NumPy's, or jax's, traced or not.

    Source of all reading: what is read and what exported programs compute is the same.
    """
    return {
        name: _float32(x, stored.get(name + SCALE))
        for name, x in stored.items()
        if not name.endswith(SCALE)
    }


def nest(named: Mapping[str, Any]) -> Params:
    """Arrays by their paths in the nest, nested."""
    return traverse_util.unflatten_dict(dict(named), sep=SLASH)


def load_params(path: Path, *, place: Place | None = None) -> Params:
    """The parameters in `path`: float32 numpy arrays, or what `place` makes of each.

    Tensors are read one after another: with `place` no more than the largest of them is in the
    host's memory.
    Errors: as `read_named`.
    """
    if wrong := _wrong_dtypes(path):
        raise ValueError(f"{path}: not weights of ours:\n  " + "\n  ".join(wrong))
    return nest({name: place(x) if place else x for name, x in _each(path)})


def load_with_digest(path: Path, *, place: Place) -> tuple[Params, str]:
    """The parameters in `path`, as `load_params`, and the SHA-256 of the file that they are from.

    The file is read once, from its beginning to its end: the digest is of the bytes that are used.
    Errors: as `read_named`.
    """
    if wrong := _wrong_dtypes(path):
        raise ValueError(f"{path}: not weights of ours:\n  " + "\n  ".join(wrong))
    found: dict[str, Any] = {}
    waiting: dict[str, np.ndarray] = {}  # int8 kernels and scales, until both are there
    with TensorStream(path) as stream:
        for name, array in stream.tensors():
            kernel = name.removesuffix(SCALE)
            waiting[name] = array
            if kernel in waiting and (kernel + SCALE in waiting or kernel + SCALE not in stream):
                stored, scale = waiting.pop(kernel), waiting.pop(kernel + SCALE, None)
                found[kernel] = place(_float32(stored, scale))
        return nest(found), stream.digest()


def check_params(path: Path, like: Params) -> None:
    """Refuse a file whose header doesn't fit. Nothing large is read.

    Errors: FileNotFoundError; ValueError for a damaged file, or one that lists every tensor that is
    missing, not wanted, of another shape or of another dtype.
    """
    found = _shapes(path)
    wanted = {
        _name(where): tuple(leaf.shape) for where, leaf in jax.tree_util.tree_leaves_with_path(like)
    }
    scales = {
        name + SCALE: found[name][-1:] for name in wanted if name + SCALE in found and name in found
    }
    if wrong := [
        *tensor_mismatches(found, wanted | scales),
        *_wrong_dtypes(path),
    ]:
        raise ValueError(f"{path}: the weights do not fit this config:\n  " + "\n  ".join(wrong))


def tensor_mismatches(there: Shapes, wanted: Shapes, *, extra: bool = True) -> list[str]:
    """Describe each tensor that doesn't fit a network: missing, extra or of another shape.

    Tensors that are not wanted count if `extra`; of very many the first are described.
    """
    found = [
        *(f"missing {name} {shape}" for name, shape in wanted.items() if name not in there),
        *(f"extra {name} {there[name]}" for name in there if extra and name not in wanted),
        *(
            f"{name} is {there[name]}, wanted {shape}"
            for name, shape in wanted.items()
            if name in there and there[name] != shape
        ),
    ]
    return _first(found)


def _first(lines: list[str]) -> list[str]:
    """Return the first lines of a list, each short, and how many more there are."""
    more = [f"and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    return [abridge(line).replace("\n", "\\n") for line in lines[:LISTED]] + more


def read_named(path: Path) -> dict[str, np.ndarray]:
    """All tensors in `path` by name, as float32.

    Errors: FileNotFoundError; ValueError for a damaged file or tensors of another dtype.
    """
    return traverse_util.flatten_dict(load_params(path), sep=SLASH)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata that `save_params` was given.

    Errors: FileNotFoundError; ValueError for a damaged file.
    """
    with open_tensors(path) as file:
        return file.metadata() or {}


def read_dtypes(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every tensor in `path` by name, as stored.

    Errors: as `read_metadata`; ValueError for a dtype that is not read.
    """
    if wrong := _wrong_dtypes(path):
        raise ValueError(f"{path}: not weights of ours:\n  " + "\n  ".join(wrong))
    with open_tensors(path) as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        return {
            name: jax.ShapeDtypeStruct(tuple(x.get_shape()), _NAMES[x.get_dtype()])
            for name, x in slices.items()
        }


def _each(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and float32 tensors, one after another."""
    with open_tensors(path) as file:
        names = set(file.keys())
        for name in sorted(n for n in names if not n.endswith(SCALE)):
            scale = file.get_tensor(name + SCALE) if name + SCALE in names else None
            yield name, _float32(file.get_tensor(name), scale)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with open_tensors(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _wrong_dtypes(path: Path) -> list[str]:
    """A line for each tensor of a dtype that is not read, or an int8 one alone."""
    with open_tensors(path) as file:
        found = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    wanted = ", ".join(_NAMES.values())
    wrong = [f"{n} holds {x}, wanted {wanted}" for n, x in found.items() if x not in _NAMES]
    lone = [n for n, x in found.items() if x == "I8" and n + SCALE not in found]
    return _first([*wrong, *(f"{name} is int8 and lacks {name}{SCALE}" for name in lone)])


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a file of tensors.

    Errors: FileNotFoundError; OSError for no file; ValueError for a file cut short.
    """
    try:
        _check_header(path)
        with safetensors.safe_open(path, "numpy") as opened:
            names = opened.keys()
            some = join_texts(map(repr, names[:SHOWN]))
            limits.TENSORS.check(len(names), f"{path}, which holds {some} and others, has")
            yield opened
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f"{path} can't be read ({error}): is it a file, and yours?") from error
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}); copy, download or export it again"
        ) from error


def _check_header(path: Path) -> None:
    """Refuse what is no file, and a header that would take long to parse."""
    with whole_files.open_file(path) as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > HEADER and os.fstat(opened.fileno()).st_size > HEADER:
            raise ValueError(
                f"{path}: its header would have {length:,} bytes, more than {HEADER:,}, so it is "
                "no file of weights; copy, download or export it again"
            )


def _is_quantised(name: str, rank: int) -> bool:
    """Return whether int8 rounds a tensor: kernels alone."""
    return rank >= 2 and name.rpartition(SLASH)[2] == "kernel"


def _float32(stored: Any, scale: Any | None) -> Any:
    """Convert one tensor; `scale` (last axis,) is that of an int8 one."""
    found = stored.astype(np.float32)
    return found if scale is None else found * scale.reshape((1,) * (found.ndim - 1) + (-1,))


def _name(where: tuple[object, ...]) -> str:
    return jax.tree_util.keystr(where, simple=True, separator=SLASH)
