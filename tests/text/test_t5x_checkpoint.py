"""T5X's classic layout in all its variants, written here with TensorStore from its description."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import serialization, traverse_util
from t5_checkpoints import (
    CONFIG,
    QUERY,
    Tensors,
    Writer,
    joined,
    per_layer,
    rounded,
    stacked,
)

from imagen_jax.text.checkpoints import load
from imagen_jax.text.t5 import T5Config


def check(path: Path, expected: Tensors) -> T5Config:
    """Load, and compare names and values exactly."""
    config, params = load.load_parameters(path)
    loaded = traverse_util.flatten_dict(params, sep=".")
    assert loaded.keys() == expected.keys()
    for name, array in expected.items():
        assert loaded[name].dtype == np.float32, name
        np.testing.assert_array_equal(loaded[name], np.asarray(array, np.float32), err_msg=name)
    return config


@pytest.mark.parametrize("kvstore", ["file", "gfile", "gcs", "outside"])
@pytest.mark.parametrize("dotfiles", [True, False])
@pytest.mark.parametrize("inlined", [r"^$", r"scale$", r""])
def test_bfloat16_in_chunks_wherever_it_was_written(
    tmp_path, kvstore: str, dotfiles: bool, inlined: str
) -> None:
    tensors = rounded(per_layer())
    writer = Writer(kvstore=kvstore, dotfiles=dotfiles, inlined=inlined)
    assert check(writer.write(tmp_path / "checkpoint_1000", tensors), tensors) == CONFIG


def test_chunks_are_several(tmp_path) -> None:
    folder = Writer().write(tmp_path / "checkpoint_1000", per_layer())
    names = {p.name for p in (folder / f"target.{QUERY}").iterdir()}
    assert names == {".zarray", "0.0", "0.1", "1.0", "1.1"}


@pytest.mark.parametrize("ranks", [2, 3])
def test_scanned_layers(tmp_path, ranks: int) -> None:
    tensors = rounded(per_layer(own_bias=True, ranks=ranks))
    folder = Writer(inlined=r"scale$").write(tmp_path / "checkpoint_1000", stacked(tensors))
    assert check(folder, joined(tensors)).bias_per_layer


def test_unscanned_layers_of_rank_3(tmp_path) -> None:
    tensors = per_layer(own_bias=True, ranks=3)
    folder = Writer().write(tmp_path / "checkpoint_1000", tensors)
    assert check(folder, joined(tensors)).bias_per_layer


def test_version_1_0_has_no_gate(tmp_path) -> None:
    tensors = per_layer(gated=False)
    assert not check(Writer().write(tmp_path / "checkpoint_1000", tensors), tensors).gated


def test_version_2_stores_bfloat16_as_bits(tmp_path) -> None:
    tensors = rounded(per_layer())
    bits = {name: array.view(np.uint16) for name, array in tensors.items()}
    check(Writer(version=2, inlined=r"scale$").write(tmp_path / "checkpoint_7", bits), tensors)
    now = Writer().write(tmp_path / "checkpoint_8", bits)
    with pytest.raises(ValueError, match="uint16, not a float"):
        load.load_parameters(now)


def test_one_file_with_chunked_inlined_arrays(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    tensors = per_layer()
    folder = Writer(inlined=r"").write(tmp_path / "written", tensors)
    assert b"__msgpack_chunked_array__" in (folder / "checkpoint").read_bytes()
    (folder / "checkpoint").rename(tmp_path / "checkpoint_0")
    check(tmp_path / "checkpoint_0", tensors)


def test_a_parent_holds_exactly_one_checkpoint(tmp_path) -> None:
    tensors = per_layer()
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        load.load_parameters(tmp_path)
    Writer(inlined="").write(tmp_path / "checkpoint_1000.tmp-1700000000", tensors)
    with pytest.raises(FileNotFoundError, match="checkpoint_N"):
        load.load_parameters(tmp_path)
    Writer(inlined="").write(tmp_path / "checkpoint_1000", tensors)
    check(tmp_path, tensors)
    Writer(inlined="").write(tmp_path / "checkpoint_2000", tensors)
    with pytest.raises(ValueError, match="checkpoint_1000, checkpoint_2000"):
        load.load_parameters(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        load.load_parameters(tmp_path / "absent")


def test_a_missing_chunk_is_not_read_as_zeros(tmp_path) -> None:
    folder = Writer().write(tmp_path / "checkpoint_1000", per_layer())
    directory = folder / f"target.{QUERY}"
    chunk = directory / "1.0"
    content = chunk.read_bytes()
    match = f"{re.escape(QUERY)} cannot be read from {re.escape(str(directory))}"
    for name in ("1.0_.gstmp", None):
        chunk.unlink(missing_ok=True)
        if name:
            (directory / name).write_bytes(content)
        with pytest.raises(ValueError, match=match):
            load.load_parameters(folder)
    chunk.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=match):
        load.load_parameters(folder)
    shutil.rmtree(directory)
    with pytest.raises(FileNotFoundError, match=f"{re.escape(QUERY)}: its folder .* is missing"):
        load.load_parameters(folder)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_msgpack_file_is_refused(tmp_path, keep: int) -> None:
    folder = Writer().write(tmp_path / "checkpoint_1000", per_layer())
    file = folder / "checkpoint"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"checkpoint_1000/checkpoint \(\d+ bytes\) is cut short"):
        load.load_parameters(folder)


@pytest.mark.parametrize("version", [1, 4])
def test_other_versions_are_refused(tmp_path, version: int) -> None:
    folder = Writer(version=version).write(tmp_path / "checkpoint_1000", per_layer())
    with pytest.raises(ValueError, match=f"checkpoint is of version {version}; versions 2 to 3"):
        load.load_parameters(folder)


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ([1, 2], "states no version"),
        ({"encoder": {}}, "states no version"),
        ({"version": 3, "optimizer": {"state": {}}}, "no parameters at optimizer/target"),
        ({"version": 3, "_optimizer": {}}, "no parameters at optimizer/target"),
        ({"version": 3, "optimizer": {"target": {}}}, "lacks token_embedder.embedding"),
        (
            {"version": 3, "optimizer": {"target": {"encoder": {"x": "PLACEHOLDER://encoder.x"}}}},
            "encoder.x in .* is 'PLACEHOLDER",
        ),
    ],
)
def test_trees_of_something_else_are_refused(tmp_path, tree, match: str) -> None:
    (tmp_path / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))
    with pytest.raises(ValueError, match=match):
        load.load_parameters(tmp_path)


VALUE = "encoder.layers_1.attention.value.kernel"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({VALUE: np.ones((8, 6), np.float32)}, rf"{VALUE} has shape \(8, 6\) instead of \(8, 8\)"),
        ({"encoder.side_relpos_bias.rel_embedding": np.ones(3)}, "side_relpos.* is unknown"),
        ({"token_embedder.embedding": np.ones(3)}, r"expected matrices, found token_embedder.*3,"),
        ({QUERY: np.ones((8, 7), np.float32)}, "7 columns, no multiple of the 2 heads"),
        ({"encoder.encoder.mlp.bias": np.ones(8)}, r"mlp.bias .*\(8,\), without an axis 1"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, match: str) -> None:
    folder = Writer(inlined="").write(tmp_path / "checkpoint_1000", per_layer() | change)
    with pytest.raises(ValueError, match=match):
        load.load_parameters(folder)


def test_a_folder_of_another_checkpoint_is_named(tmp_path) -> None:
    folder = Writer().write(tmp_path / "checkpoint_1000", per_layer())
    shutil.rmtree(folder / f"target.{QUERY}")
    other = f"target.{QUERY.replace('attention.query', 'mlp.wi_0')}"
    shutil.copytree(folder / other, folder / f"target.{QUERY}")
    with pytest.raises(ValueError, match=rf"{QUERY} in .* \(8, 16\), .* states \(8, 8\)"):
        load.load_parameters(folder)
