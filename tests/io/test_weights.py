"""Weights come back from safetensors exactly (or rounded once), or are refused by name."""

import hashlib
import stat
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as tensors

from imagen_jax.io import safetensors
from imagen_jax.io.tensor_stream import TensorStream

PARAMS = {
    "dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7, "bias": np.ones(3, "f4")},
    "scale": np.float32(1 / 3),
}
LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), PARAMS)


def _saved(folder: Path, dtype: safetensors.Dtype = "float32", params=PARAMS) -> Path:
    safetensors.save_params(folder / "w.safetensors", params, dtype=dtype, metadata={"step": "12"})
    return folder / "w.safetensors"


def test_float32_comes_back_exactly(tmp_path: Path) -> None:
    file = _saved(tmp_path)
    again = safetensors.load_params(file)
    assert jax.tree.structure(again) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, again, PARAMS)
    assert safetensors.read_metadata(file) == {"step": "12"}


def test_names_are_paths_in_the_nest(tmp_path: Path) -> None:
    assert set(tensors.load_file(_saved(tmp_path))) == {"dense/bias", "dense/kernel", "scale"}


def test_bfloat16_is_stored_in_half_and_rounded_to_nearest(tmp_path: Path) -> None:
    file = _saved(tmp_path, "bfloat16")
    stored = tensors.load_file(file)
    assert {str(x.dtype) for x in stored.values()} == {"bfloat16"}
    assert sum(x.nbytes for x in stored.values()) == 2 * 10
    again = safetensors.load_params(file)
    assert {str(x.dtype) for x in jax.tree.leaves(again)} == {"float32"}
    # 1/3 = 1.0101 0101 0101... b-2: seven bits of fraction, then 0101... is over one half, so up.
    assert again["scale"] == 0b10101011 / 2**9
    kernel, exact = again["dense"]["kernel"], PARAMS["dense"]["kernel"]
    np.testing.assert_allclose(kernel, exact, rtol=2**-8)
    assert np.abs(kernel - exact).max() > 0


def _kernel() -> np.ndarray:
    """One output channel of zeros, and one of which every value is a multiple of its scale."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    kernel[..., 1] = 0.0
    kernel[..., 2] = np.resize(np.arange(-127, 128), (3, 3, 4)) * 0.25
    kernel[0, 0, 0, 2] = 127 * 0.25
    return kernel


def test_int8_is_within_half_a_step_of_each_channel(tmp_path: Path) -> None:
    kernel, table = _kernel(), np.full((2, 3), 1 / 3, np.float32)
    params = {"conv": {"kernel": kernel, "bias": np.full(5, 1 / 3, "f4")}, "positions": table}
    file = _saved(tmp_path, "int8", params)
    stored = tensors.load_file(file)
    assert {name: (str(x.dtype), x.shape) for name, x in stored.items()} == {
        "conv/bias": ("float32", (5,)),
        "conv/kernel": ("int8", (3, 3, 4, 5)),
        "conv/kernel.scale": ("float32", (5,)),
        "positions": ("float32", (2, 3)),
    }
    np.testing.assert_allclose(
        stored["conv/kernel.scale"], np.abs(kernel).max((0, 1, 2)) / 127, rtol=1e-6
    )
    assert stored["conv/kernel"].min() >= -127
    safetensors.check_params(file, params)
    again = safetensors.load_params(file)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    error = np.abs(again["conv"]["kernel"] - kernel)
    assert (error <= 0.501 * stored["conv/kernel.scale"]).all()
    assert (
        error[..., [0, 3, 4]].max((0, 1, 2)) > 0.3 * stored["conv/kernel.scale"][[0, 3, 4]]
    ).all()
    np.testing.assert_array_equal(again["conv"]["kernel"][..., 1:3], kernel[..., 1:3])
    np.testing.assert_array_equal(again["conv"]["bias"], params["conv"]["bias"])
    np.testing.assert_array_equal(again["positions"], table)
    traced = jax.jit(lambda x: safetensors.nest(safetensors.as_float32(x)))(stored)
    jax.tree.map(np.testing.assert_array_equal, traced, again)


def test_int8_without_its_scale_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    tensors.save_file({"dense/kernel": np.ones((2, 2), np.int8)}, file)
    with pytest.raises(ValueError, match=r"dense/kernel is int8 and lacks dense/kernel\.scale"):
        safetensors.load_params(file)


def test_tensors_are_placed_one_by_one(tmp_path: Path) -> None:
    seen = []
    again = safetensors.load_params(_saved(tmp_path), place=lambda x: seen.append(x.shape) or x + 1)
    assert sorted(seen) == [(), (2, 3), (3,)]
    assert again["scale"] == PARAMS["scale"] + 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_the_order_of_an_array_in_memory_does_not_matter(tmp_path: Path, dtype) -> None:
    scrambled = jax.tree.map(lambda x: np.array(x, order="F"), PARAMS)
    first = _saved(tmp_path, dtype).read_bytes()
    assert _saved(tmp_path, dtype, scrambled).read_bytes() == first


def test_everybody_who_may_read_other_files_may_read_it(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert stat.S_IMODE(_saved(tmp_path).stat().st_mode) == stat.S_IMODE(
        (tmp_path / "other").stat().st_mode
    )


def test_everything_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    file = _saved(tmp_path)
    like = {
        "dense": {"kernel": jax.ShapeDtypeStruct((2, 4), jnp.float32)},
        "scale": LIKE["scale"],
        "new": {"bias": jax.ShapeDtypeStruct((5,), jnp.float32)},
    }
    with pytest.raises(ValueError, match="do not fit this config") as refusal:
        safetensors.check_params(file, like)
    lines = str(refusal.value).splitlines()
    assert str(file) in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        "missing new/bias (5,)",
        "extra dense/bias (3,)",
        "dense/kernel is (2, 3), wanted (2, 4)",
    ]


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    tensors.save_file({"a": np.ones(2, np.float64)}, file)
    with pytest.raises(ValueError, match="a holds F64, wanted float32, float16, bfloat16, int8"):
        safetensors.load_params(file)


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_damaged_file_is_named(tmp_path: Path, kept: int) -> None:
    file = _saved(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    for read in (lambda: safetensors.load_params(file), lambda: safetensors.read_metadata(file)):
        with pytest.raises(ValueError, match=r"w\.safetensors: not a whole safetensors file"):
            read()


def test_no_file_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        safetensors.load_params(tmp_path / "none.safetensors")


@pytest.mark.parametrize("dtype", get_args(safetensors.Dtype))
def test_a_pass_over_a_file_gives_weights_and_digest(tmp_path: Path, dtype) -> None:
    file = _saved(tmp_path, dtype)
    read, digest = safetensors.load_with_digest(file, place=lambda x: x)
    jax.tree.map(np.testing.assert_array_equal, read, safetensors.load_params(file))
    assert {str(x.dtype) for x in jax.tree.leaves(read)} == {"float32"}
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_placed_is_what_is_digested(tmp_path: Path) -> None:
    """A file that is written over while it is read has not the digest of what it was."""
    file = _saved(tmp_path)
    good = hashlib.sha256(file.read_bytes()).hexdigest()

    def place(array: np.ndarray) -> np.ndarray:
        with file.open("r+b") as opened:
            opened.seek(-4, 2)
            opened.write(b"\0\0\0\0")
        return array

    read, digest = safetensors.load_with_digest(file, place=place)
    same = all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), read, PARAMS)))
    assert same == (digest == good)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x[:-1], "not a whole safetensors file"),
        (lambda x: x + b"\0", "not a whole safetensors file"),
        (lambda x: (2**62).to_bytes(8, "little") + x[8:], "not a whole safetensors file"),
        (lambda x: x.replace(b'"F32"', b'"F64"'), "not"),
        (lambda x: x[:4], "not a whole safetensors file"),
    ],
)
def test_a_pass_over_what_is_no_whole_file_is_refused(tmp_path: Path, change, says: str) -> None:
    file = _saved(tmp_path)
    file.write_bytes(change(file.read_bytes()))
    for read in (
        lambda: safetensors.load_with_digest(file, place=lambda x: x),
        lambda: list(TensorStream(file).tensors()),
    ):
        with pytest.raises(ValueError, match=rf"w\.safetensors.*{says}"):
            read()
