"""How the parameters of a T5 encoder are kept: dtypes, scales of int8, axes that are split."""

import jax

from imagen_jax.config import EncoderDtype
from imagen_jax.text.t5 import SCALE, Dtype, T5Config, parameter_shapes, product_dtype


def storage_dtype(name: str, shape: tuple[int, ...], dtype: EncoderDtype) -> Dtype:
    """The dtype that a parameter is kept in where the encoder computes in `dtype`.

    Vectors and tables of positions are added or multiplied in float32, and small. Of int8 it is the
    one of the products: `quantised_axis` tells what is int8 in memory.
    """
    return product_dtype(dtype) if _is_matrix(name, shape) else "float32"


def quantised_axis(name: str, shape: tuple[int, ...], dtype: EncoderDtype) -> int | None:
    """The axis along which numbers of an int8 matrix share a scale; None for what is not int8.

    A token's row of the embedding has one, and a kernel's column, all that one output sums.
    """
    if dtype != "int8" or not _is_matrix(name, shape):
        return None
    return 1 if name.endswith("embedding") else 0


def storage_shapes(config: T5Config, dtype: EncoderDtype) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of all that memory holds of an encoder, by name."""
    found = {}
    for name, shape in parameter_shapes(config).items():
        axis = quantised_axis(name, shape, dtype)
        kept = "int8" if axis is not None else storage_dtype(name, shape, dtype)
        found[name] = jax.ShapeDtypeStruct(shape, kept)
        if axis is not None:
            found[name + SCALE] = jax.ShapeDtypeStruct((shape[1 - axis],), "float32")
    return found


def split_axis(name: str) -> int | None:
    """The axis of a parameter that runs over heads or hidden units, by which products are split.

    Rows of `out` and `wo`, columns of the other kernels and of the embedding; None for the rest.
    """
    module, _, kind = name.rpartition(".")
    if kind not in ("kernel", "embedding"):
        return None
    return 0 if module.endswith((".out", ".wo")) else 1


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and "relpos" not in name
