"""Laws that every checkpoint format of a text encoder obeys.

This project's own is written from the others alone: `test_exported` compares what comes back.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flax import traverse_util
from t5_checkpoints import (
    CONFIG,
    WIDTH,
    Tensors,
    Writer,
    per_layer,
    rounded,
    stacked,
    write_hugging_face,
    write_orbax,
)

from imagen_jax.text.checkpoints import load

Write = Callable[[Path, Tensors], Path]
FORMATS: dict[str, Write] = {
    "t5x": Writer().write,
    "t5x inlined": Writer(inlined="").write,
    "t5x scanned": lambda folder, tensors: Writer().write(folder, stacked(tensors)),
    "orbax": write_orbax,
    "hugging face": write_hugging_face,
}
NORM = "encoder.layers_1.pre_mlp_layer_norm.scale"
KERNEL = "encoder.layers_1.mlp.wi_1.kernel"


@pytest.fixture(params=FORMATS)
def write(request: pytest.FixtureRequest) -> Write:
    return FORMATS[request.param]


@pytest.mark.parametrize("stored", [dict, rounded], ids=["float32", "bfloat16"])
def test_the_same_tensors_come_of_whichever_format(tmp_path: Path, write: Write, stored) -> None:
    tensors = stored(per_layer())
    config, params = load.load_parameters(write(tmp_path / "checkpoint_3", tensors))
    assert config == CONFIG
    found = traverse_util.flatten_dict(params, sep=".")
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == np.float32, name
        np.testing.assert_array_equal(found[name], np.asarray(array, np.float32), err_msg=name)


def test_the_layout_says_what_is_read(tmp_path: Path, write: Write) -> None:
    tensors = per_layer()
    config, layout = load.find_layout(write(tmp_path / "checkpoint_3", tensors))
    assert config == CONFIG
    shapes = {one.name: tuple(one.shape) for _, parameters in layout for one in parameters}
    assert shapes == {name: array.shape for name, array in tensors.items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({NORM: None}, f"{NORM} is missing"),
        ({KERNEL: None}, f"{KERNEL} is missing"),
        ({"encoder.layers_1.mlp.wi_7.kernel": np.ones((WIDTH, 16), np.float32)}, "wi_7.*unknown"),
        ({NORM: np.ones(9, np.float32)}, rf"{NORM} has shape \(9,\) instead of \(8,\)"),
        (
            {KERNEL: np.ones((WIDTH, 3), np.float32)},
            rf"{KERNEL} has shape \(8, 3\) instead of \(8, 16\)",
        ),
    ],
    ids=["no norm", "no kernel", "another kernel", "a longer norm", "a narrower kernel"],
)
def test_what_does_not_fit_is_named(tmp_path: Path, write: Write, change: dict, says: str) -> None:
    """In scanned layers a tensor is missing, unknown or of another shape in all of them."""
    scanned = write is FORMATS["t5x scanned"]
    if scanned:
        zero = {name.replace("layers_1", "layers_0"): x for name, x in change.items()}
        change, says = change | zero, says.replace("layers_1", "layers_[01]")
    tensors = {n: a for n, a in (per_layer() | change).items() if a is not None}
    folder = write(tmp_path / "checkpoint_3", tensors)
    with pytest.raises(ValueError, match=says) as told:
        load.load_parameters(folder)
    assert re.search(re.escape(str(folder)), str(told.value))
