"""Parameters of a text encoder onto its devices, in the dtypes that they are kept in."""

from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding

from imagen_jax import config
from imagen_jax.io.int8 import quantise_int8
from imagen_jax.parallel import mesh
from imagen_jax.text import encoder_digests, t5, t5_storage
from imagen_jax.text.checkpoints import lazy_tensors
from imagen_jax.types import Params

Split = Literal["captions", "heads"]

LEAST_SHARD = 2**20  # bytes; smaller parameters are whole on every device


class Placer:
    """Puts parameters onto devices as they are read, and digests them."""

    def __init__(
        self, devices: Mesh, dtype: config.EncoderDtype, split: Split = "captions"
    ) -> None:
        self._devices, self._dtype, self._split = devices, dtype, split
        self._digests: dict[str, str] = {}

    def __call__(self, name: str, array: np.ndarray) -> "jax.Array | _Rounded":
        self._digests[name] = lazy_tensors.digest_values(array)
        axis = t5_storage.quantised_axis(name, array.shape, self._dtype)
        if axis is None:
            return self._put(name, array, t5_storage.storage_dtype(name, array.shape, self._dtype))
        whole, scale = quantise_int8(np.array(array, np.float32, order="C"), (axis,))
        return _Rounded(
            self._put(name, whole, "int8"), self._put(name + t5.SCALE, scale, "float32")
        )

    def _put(self, name: str, array: np.ndarray, dtype: str) -> jax.Array:
        kept = jax.ShapeDtypeStruct(array.shape, dtype)
        where = parameter_sharding(name, kept, self._devices, self._split)
        return jax.make_array_from_callback(
            array.shape, where, lambda part: np.array(array[part], kept.dtype, order="C")
        )

    def digest(self) -> str:
        """Digest all weights as float32, whatever the order and dtype in which they were stored."""
        return encoder_digests.digest_weights(self._digests)


class _Rounded(NamedTuple):
    """A matrix of int8, and what its numbers count in."""

    values: jax.Array
    scale: jax.Array


def put_scales_beside(params: Params) -> Params:
    """The tree with scales beside the matrices that they are of."""
    flat: dict[tuple[str, ...], Any] = {}
    for path, leaf in traverse_util.flatten_dict(params).items():
        if isinstance(leaf, _Rounded):
            flat[path], flat[(*path[:-1], path[-1] + t5.SCALE)] = leaf
        else:
            flat[path] = leaf
    return traverse_util.unflatten_dict(flat)


def parameter_sharding(
    name: str, shape: jax.ShapeDtypeStruct, devices: Mesh, split: Split
) -> NamedSharding:
    """Return the sharding of a parameter over the devices."""
    if split == "heads":
        return mesh.kernel_sharding(len(shape.shape), t5_storage.split_axis(name), devices)
    return mesh.state_shardings(shape, devices, min_shard_bytes=LEAST_SHARD)
