"""The dtype that a zarr array's metadata state, before TensorStore allocates an element of it."""

from typing import Any

from imagen_jax.config.sentences import shorten


def check_dtype(dtype: Any, where: object) -> None:
    """Refuse a dtype of several fields, of which a few bytes can claim gigabytes an element.

    Errors: ValueError.
    """
    if dtype is not None and not isinstance(dtype, str):
        raise ValueError(f"{where} states the dtype {shorten(dtype)}, which no weights have")
