"""T5X's classic layout in all its variants, written here with TensorStore from its description."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from flax import serialization, traverse_util

from imagen_jax.text.checkpoints import load
from imagen_jax.text.t5 import T5Config

VOCAB, WIDTH, LAYERS, HEADS, HEAD_DIM, MLP = 24, 8, 2, 2, 4, 16
INNER = HEADS * HEAD_DIM
CONFIG = T5Config(
    vocab=VOCAB, width=WIDTH, layers=LAYERS, heads=HEADS, head_dim=HEAD_DIM, mlp_width=MLP
)
QUERY = "encoder.layers_0.attention.query.kernel"

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Writer:
    """How a checkpoint is written; the defaults are T5X's of 2026."""

    version: int = 3
    kvstore: str = "file"  # or where it was written: gfile, gcs, or the path outside kvstore
    inlined: str = r"^$"  # tensors in the msgpack file; the others are zarr
    dotfiles: bool = True

    def write(self, folder: Path, tensors: Tensors) -> Path:
        folder.mkdir(parents=True)
        leaves = {
            name: array if re.search(self.inlined, name) else self._zarr(folder, name, array)
            for name, array in tensors.items()
        }
        target = traverse_util.unflatten_dict(leaves, sep=".")
        target["decoder"] = {"decoder_norm": {"scale": _spec("decoder.absent", np.ones(4), {})}}
        state = {"step": np.int32(1000)}
        tree = {"version": self.version, "optimizer": {"state": state, "target": target}}
        (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))
        return folder

    def _zarr(self, folder: Path, name: str, array: np.ndarray) -> dict:
        path = folder / f"target.{name}"
        metadata = {
            "shape": list(array.shape),
            "chunks": [size // 2 if size % 2 == 0 else size for size in array.shape],
            "compressor": {"id": "gzip", "level": 1},
        }
        kvstore = {"driver": "file", "path": f"{path}/"}
        request = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
        store = tensorstore.open(
            request, create=True, dtype=array.dtype.name, shape=array.shape
        ).result()
        store.write(array).result()
        if not self.dotfiles:
            (path / ".zarray").unlink()
        return self._as_written(_spec(name, array, metadata), path.name)

    def _as_written(self, spec: dict, directory: str) -> dict:
        if self.kvstore == "gfile":  # Google's own, with what else their specs hold
            spec["kvstore"] = {"driver": "gfile", "path": f"/home/t5/checkpoint_1000/{directory}"}
            spec["metadata"] |= {"chunks": [1], "compressor": None} if self.dotfiles else {}
            spec["transform"] = {"input_inclusive_min": [0]}
        elif self.kvstore == "gcs":
            spec["kvstore"] = {"driver": "gcs", "bucket": "t5x-dummy-bucket", "path": directory}
        elif self.kvstore == "outside":
            spec["path"] = spec["kvstore"].pop("path")
        return spec


def _spec(name: str, array: np.ndarray, metadata: dict) -> dict:
    kvstore = {"driver": "file", "path": f"target.{name}/"}
    return {
        "driver": "zarr",
        "dtype": array.dtype.name,
        "kvstore": kvstore,
        "metadata": dict(metadata),
    }


def per_layer(*, gated: bool = True, own_bias: bool = False, ranks: int = 2) -> Tensors:
    """Tensors named layer by layer; every value differs."""
    shapes = {"token_embedder.embedding": (VOCAB, WIDTH), "encoder.encoder_norm.scale": (WIDTH,)}
    attention = {2: (WIDTH, INNER), 3: (WIDTH, HEADS, HEAD_DIM)}[ranks]
    out = {2: (INNER, WIDTH), 3: (HEADS, HEAD_DIM, WIDTH)}[ranks]
    for index in range(LAYERS):
        layer = f"encoder.layers_{index}."
        for name in ("query", "key", "value"):
            shapes[f"{layer}attention.{name}.kernel"] = attention
        shapes[f"{layer}attention.out.kernel"] = out
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            shapes[f"{layer}mlp.{name}.kernel"] = (WIDTH, MLP)
        shapes[f"{layer}mlp.wo.kernel"] = (MLP, WIDTH)
        shapes[f"{layer}pre_attention_layer_norm.scale"] = (WIDTH,)
        shapes[f"{layer}pre_mlp_layer_norm.scale"] = (WIDTH,)
        if own_bias:
            shapes[f"{layer}relpos_bias.rel_embedding"] = (HEADS, 32)
    if not own_bias:
        shapes["encoder.relpos_bias.rel_embedding"] = (HEADS, 32)
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def stacked(tensors: Tensors) -> Tensors:
    """The same tensors with the layers on axis 1, as `scan_layers=True` names them."""
    first = "encoder.layers_0."
    scanned = {name: array for name, array in tensors.items() if ".layers_" not in name}
    for name in (n.removeprefix(first) for n in tensors if n.startswith(first)):
        layers = [tensors[f"encoder.layers_{index}.{name}"] for index in range(LAYERS)]
        scanned[f"encoder.encoder.{name}"] = np.stack(layers, axis=1)
    return scanned


def joined(tensors: Tensors) -> Tensors:
    """Attention kernels as matrices, by the names of the heads' axes."""
    shapes = {"query": (WIDTH, INNER), "key": (WIDTH, INNER), "value": (WIDTH, INNER)}
    shapes["out"] = (INNER, WIDTH)
    return {
        name: array.reshape(shapes[name.split(".")[3]]) if ".attention." in name else array
        for name, array in tensors.items()
    }


def rounded(tensors: Tensors) -> Tensors:
    return {name: np.asarray(array, jnp.bfloat16) for name, array in tensors.items()}


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


NORM = "encoder.layers_1.pre_mlp_layer_norm.scale"
VALUE = "encoder.layers_1.attention.value.kernel"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({NORM: np.ones(9, np.float32)}, rf"{NORM} has shape \(9,\) instead of \(8,\)"),
        ({VALUE: np.ones((8, 6), np.float32)}, rf"{VALUE} has shape \(8, 6\) instead of \(8, 8\)"),
        ({NORM: None}, f"{NORM} is missing"),
        ({"encoder.side_relpos_bias.rel_embedding": np.ones(3)}, "side_relpos.* is unknown"),
        ({"token_embedder.embedding": np.ones(3)}, r"expected matrices, found token_embedder.*3,"),
        ({QUERY: np.ones((8, 7), np.float32)}, "7 columns, no multiple of the 2 heads"),
        ({"encoder.encoder.mlp.bias": np.ones(8)}, r"mlp.bias .*\(8,\), without an axis 1"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, match: str) -> None:
    tensors = {n: a for n, a in (per_layer() | change).items() if a is not None}
    folder = Writer(inlined="").write(tmp_path / "checkpoint_1000", tensors)
    with pytest.raises(ValueError, match=match):
        load.load_parameters(folder)


def test_a_folder_of_another_checkpoint_is_named(tmp_path) -> None:
    folder = Writer().write(tmp_path / "checkpoint_1000", per_layer())
    shutil.rmtree(folder / f"target.{QUERY}")
    other = f"target.{QUERY.replace('attention.query', 'mlp.wi_0')}"
    shutil.copytree(folder / other, folder / f"target.{QUERY}")
    with pytest.raises(ValueError, match=rf"{QUERY} in .* \(8, 16\), .* states \(8, 8\)"):
        load.load_parameters(folder)
