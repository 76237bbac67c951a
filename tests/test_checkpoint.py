"""Checkpoints come back exactly, on any mesh, or are refused by name."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import checkpoint, config, mesh

EXPERIMENT = config.Experiment(stage=config.Stage(name="base", size=64, model=config.UNet()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("run")
    tree = {
        "step": jnp.int32(3),
        "ema": {"dense": {"kernel": jnp.arange(64.0).reshape(8, 8), "bias": jnp.ones(8)}},
        "opt_state": (jnp.zeros(()), {"mu": jnp.full((8, 8), 0.5)}),
    }
    checkpoint.write_config(folder, EXPERIMENT)
    writer = checkpoint.Checkpoints(folder)
    writer.save(3, tree, EXPERIMENT)
    writer.close()
    return folder, tree


def _target(tree, fsdp: int):
    devices = mesh.build(config.Mesh(fsdp=fsdp))
    shardings = mesh.state_shardings(tree, devices, min_shard_bytes=0)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


@pytest.mark.parametrize("fsdp", [1, 4])
def test_round_trip_onto_any_mesh(saved, fsdp: int) -> None:
    folder, tree = saved
    target = _target(tree, fsdp)
    restored = checkpoint.Checkpoints(folder, read_only=True).restore(target)
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, restored, tree)
    assert restored["ema"]["dense"]["kernel"].sharding == target["ema"]["dense"]["kernel"].sharding


def test_the_average_alone(saved) -> None:
    folder, tree = saved
    target = {"ema": _target(tree, 1)["ema"]}
    restored = checkpoint.Checkpoints(folder, read_only=True).restore(target)
    assert set(restored) == {"ema"}
    np.testing.assert_array_equal(
        restored["ema"]["dense"]["kernel"], tree["ema"]["dense"]["kernel"]
    )


def test_what_does_not_fit_is_listed(saved) -> None:
    folder, tree = saved
    target = _target(tree, 1)
    target["ema"]["dense"]["bias"] = jax.ShapeDtypeStruct((9,), jnp.float32)
    with pytest.raises(ValueError, match=r"ema/dense/bias is \(8,\), wanted \(9,\)"):
        checkpoint.Checkpoints(folder, read_only=True).restore(target)
    target["ema"]["dense"]["scale"] = jax.ShapeDtypeStruct((8,), jnp.float32)
    with pytest.raises(ValueError, match="does not fit this config") as refusal:
        checkpoint.Checkpoints(folder, read_only=True).restore(target)
    assert "missing ema/dense/scale (8,)" in str(refusal.value)
    assert "ema/dense/bias is (8,), wanted (9,)" in str(refusal.value)


def test_the_config_comes_back(saved, tmp_path: Path) -> None:
    assert checkpoint.read_config(saved[0]) == EXPERIMENT
    with pytest.raises(FileNotFoundError, match="is not a training run"):
        checkpoint.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        checkpoint.read_config(tmp_path)


def test_missing_and_incomplete_checkpoints_are_named(saved, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        checkpoint.Checkpoints(tmp_path, read_only=True)
    empty = checkpoint.Checkpoints(tmp_path)
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        empty.restore(_target(saved[1], 1))
    with pytest.raises(FileNotFoundError, match="incomplete"):
        empty.restore(_target(saved[1], 1), step=7)


@pytest.mark.parametrize("lost", ["_METADATA", "manifest.ocdbt", "d"])
def test_a_checkpoint_with_lost_files_is_named(saved, tmp_path: Path, lost: str) -> None:
    folder, tree = saved
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    state = run / "checkpoints" / "3" / "state"
    victims = [f for f in state.rglob("*") if f.is_file() and (f.name == lost or lost in f.parts)]
    assert victims
    for file in victims:
        file.unlink()
    with pytest.raises(ValueError, match=r"checkpoints/3: the checkpoint is incomplete or damaged"):
        checkpoint.Checkpoints(run, read_only=True).restore(_target(tree, 1))
