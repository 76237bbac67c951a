"""Tensors written one after another are a whole safetensors file, with its digest."""

import hashlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as tensors

from imagen_jax.io import safetensors, tensor_writer

ARRAYS = {
    "a/kernel": np.arange(12, dtype=np.float16).reshape(3, 4).T,  # not in C order
    "b": np.arange(3, dtype=ml_dtypes.bfloat16),
    "c": np.float32([[1.5]]),
    "none": np.zeros((0, 2), np.float16),
}


def _write(file: Path, arrays: dict[str, np.ndarray]) -> str:
    kinds = tensor_writer.file_order(
        {name: tensor_writer.Kind(x.shape, x.dtype) for name, x in arrays.items()}
    )
    given = (arrays[name] for name in kinds)
    return tensor_writer.write_tensors(file, kinds, given, metadata={"step": "7"})


def test_other_readers_and_ours_read_it(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    assert _write(file, ARRAYS) == hashlib.sha256(file.read_bytes()).hexdigest()
    found = tensors.load_file(file)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert safetensors.read_metadata(file) == {"step": "7"}
    params, digest = safetensors.load_with_digest(file, place=lambda x: x)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    np.testing.assert_array_equal(params["a"]["kernel"], ARRAYS["a/kernel"].astype(np.float32))
    assert safetensors.read_dtypes(file)["a/kernel"].dtype == np.float16


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="b has values that are not finite"):
        _write(tmp_path / "w", ARRAYS | {"b": np.array([np.nan], ml_dtypes.bfloat16)})
