"""`--init-from`: another run's weights, whole or in part, and a list of what does not fit."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util
from small_network import FOLDER

from imagen_jax import config, export
from imagen_jax.io import checkpoints, run_dir, safetensors
from imagen_jax.io.named_tensors import NamedTensors
from imagen_jax.train import init_from, sharded_step
from imagen_jax.train.state import TrainState

# A network that has more tensors than the saved one, and some of other shapes.
OTHER = {"channel_mult": (1, 3), "res_blocks": 2}


def _program(**model: Any) -> sharded_step.ShardedStep:
    experiment = config.load(str(FOLDER / "base8.py"))[0]
    stage = experiment.stage
    stage = dataclasses.replace(stage, model=dataclasses.replace(stage.model, **model))
    grid = config.Mesh(fsdp=4, min_shard_bytes=64)
    return sharded_step.build(dataclasses.replace(experiment, stage=stage, mesh=grid))


def _state(work: sharded_step.ShardedStep, seed: int) -> TrainState:
    """Random weights, drawn here: compiling the initialisers would take most of the time."""
    draw = np.random.default_rng(seed)

    def leaf(x: jax.ShapeDtypeStruct) -> jax.Array:
        values = np.asarray(draw.standard_normal(x.shape) * np.issubdtype(x.dtype, np.floating))
        return jax.device_put(values.astype(x.dtype), x.sharding)

    return jax.tree.map(leaf, work.target())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    """A run's folder and the state of which its newest checkpoint holds both trees of weights."""
    folder, work = tmp_path_factory.mktemp("source"), _program()
    state = _state(work, 1)
    run_dir.write_config(folder, work.experiment)
    saves = checkpoints.Checkpoints(folder)
    saves.save(7, {"params": state.params, "ema": state.ema}, work.experiment)
    saves.close()
    return folder, jax.device_get(state)


def _flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _equal(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_average_begins_both(saved: tuple[Path, TrainState]) -> None:
    folder, there = saved
    fresh = _state(_program(), 2)
    begun, said = init_from.InitFrom(folder=folder).initialize(fresh)
    _equal(begun.params, there.ema)
    _equal(begun.ema, there.ema)
    _equal(begun.opt_state, fresh.opt_state)
    assert int(begun.step) == 0
    count = len(jax.tree.leaves(there.ema))
    assert said == f"{count} of {count} tensors from {folder}/checkpoints/7"
    where = jax.tree.map(lambda x: x.sharding, fresh.params)
    assert jax.tree.map(lambda x: x.sharding, begun.ema) == where


def test_weights_and_average_can_be_taken_as_they_were(saved: tuple[Path, TrainState]) -> None:
    folder, there = saved
    begun, _ = init_from.InitFrom(folder=folder, take="weights").initialize(_state(_program(), 2))
    _equal(begun.params, there.params)
    _equal(begun.ema, there.ema)


def test_the_two_trees_share_no_buffer(saved: tuple[Path, TrainState]) -> None:
    """The step donates both."""
    begun, _ = init_from.InitFrom(folder=saved[0]).initialize(_state(_program(), 2))
    jax.tree.map(lambda x: x.delete(), begun.params)
    jax.block_until_ready(begun.ema)
    assert not any(x.is_deleted() for x in jax.tree.leaves(begun.ema))


def test_every_tensor_that_does_not_fit_is_listed(saved: tuple[Path, TrainState]) -> None:
    folder, _ = saved
    fresh = _state(_program(**OTHER), 2)
    with pytest.raises(ValueError, match="--init-partial") as refused:
        init_from.InitFrom(folder=folder).initialize(fresh)
    said = str(refused.value)
    there = {n: x.shape for n, x in _flat(saved[1].ema).items()}
    wanted = {n: x.shape for n, x in _flat(fresh.params).items()}
    missing, extra = wanted.keys() - there.keys(), there.keys() - wanted.keys()
    wrong = {n for n in wanted.keys() & there.keys() if wanted[n] != there[n]}
    assert missing
    assert wrong
    lines = said.splitlines()[1:]
    assert len(lines) == len(missing) + len(extra) + len(wrong)
    for name in missing:
        assert f"  missing {name} {wanted[name]}" in lines
    for name in wrong:
        assert f"  {name} is {there[name]}, wanted {wanted[name]}" in lines


def test_extra_tensors_are_refused_too(saved: tuple[Path, TrainState], tmp_path: Path) -> None:
    fresh = _state(_program(), 2)
    there = {**jax.device_get(fresh.ema), "more": {"kernel": np.ones((3, 2), np.float32)}}
    saves = checkpoints.Checkpoints(tmp_path)
    saves.save(1, {"ema": there}, _program().experiment)
    saves.close()
    with pytest.raises(ValueError, match=r"\n  extra more/kernel \(3, 2\)$"):
        init_from.InitFrom(folder=tmp_path).initialize(fresh)


def test_a_part_is_taken_where_that_is_asked(
    saved: tuple[Path, TrainState], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, there = saved
    fresh = _state(_program(**OTHER), 2)
    expected = jax.device_get(fresh)
    begun, said = init_from.InitFrom(folder=folder, partial=True).initialize(fresh)
    old, new, own = (_flat(x) for x in (there.ema, jax.device_get(begun.params), expected.params))
    fitting = [n for n in own if n in old and old[n].shape == own[n].shape]
    assert 0 < len(fitting) < len(own)
    assert said.startswith(f"{len(fitting)} of {len(own)} tensors from ")
    for name, array in new.items():
        np.testing.assert_array_equal(array, old[name] if name in fitting else own[name])
    listed = capsys.readouterr().out
    assert listed.count("\n  ") >= len(own) - len(fitting)
    groups = [n.split("/")[0] for n in own]
    for group in set(groups):
        count = sum(n.split("/")[0] == group for n in fitting)
        assert f"{group} {count} of {groups.count(group)}" in listed


def test_what_adapters_change_is_read_alone(saved: tuple[Path, TrainState], tmp_path: Path) -> None:
    """Nothing else is on the devices meanwhile: no random weights, and no second copy."""
    work, there = _program(), saved[1]
    trained = export.StageCheckpoint(experiment=work.experiment, params=there.ema, step=7)
    export.write_bundle(tmp_path / "out", [trained], dtype="float32")
    named = safetensors.read_named(tmp_path / "out" / "base8" / "weights.safetensors")
    live: list[int] = []

    def read(name: str) -> np.ndarray:
        live.append(sum(x.nbytes for x in jax.live_arrays()))
        return named[name]

    tensors = NamedTensors({name: x.shape for name, x in named.items()}, read)
    source = init_from.InitFrom(folder=tmp_path, tensors=tensors)
    before = sum(x.nbytes for x in jax.live_arrays())
    found, said = source.read(work.target().params)
    assert max(live) - before < sum(x.nbytes for x in named.values())
    _equal(found, there.ema)
    assert said == f"{len(named)} of {len(named)} tensors from {tmp_path}"
    saved_found, _ = init_from.InitFrom(folder=saved[0]).read(work.target().params)
    _equal(saved_found, there.ema)
    where = jax.tree.map(lambda x: x.sharding, work.target().params)
    assert jax.tree.map(lambda x: x.sharding, saved_found) == where


def test_nothing_that_fits_is_refused_even_then(
    saved: tuple[Path, TrainState], tmp_path: Path
) -> None:
    saves = checkpoints.Checkpoints(tmp_path)
    saves.save(1, {"ema": {"other": np.ones(3, np.float32)}}, _program().experiment)
    saves.close()
    with pytest.raises(ValueError, match="none of its tensors fits this config:\n  missing"):
        init_from.InitFrom(folder=tmp_path, partial=True).initialize(_state(_program(), 2))


def test_an_exported_stage_begins_a_run(saved: tuple[Path, TrainState], tmp_path: Path) -> None:
    work, there = _program(), saved[1]
    trained = export.StageCheckpoint(experiment=work.experiment, params=there.ema, step=7)
    export.write_bundle(tmp_path / "out", [trained], dtype="float32")
    source = init_from.InitFrom(folder=tmp_path / "out" / "base8")
    begun, said = source.initialize(_state(work, 2))
    _equal(begun.params, there.ema)
    assert said.endswith("weights.safetensors")
    with pytest.raises(ValueError, match="averaged weights alone: give --init-take ema"):
        dataclasses.replace(source, take="weights").initialize(_state(work, 2))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="no complete checkpoint to begin with"):
        init_from.InitFrom(folder=tmp_path).initialize(_state(_program(), 2))
