"""Checkpoints come back exactly, on any mesh, or are refused by name."""

import asyncio
import dataclasses
import gc
import json
import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import config
from imagen_jax.io import checkpoint_damage, checkpoints, errors, run_dir
from imagen_jax.parallel import auto_layout, mesh

EXPERIMENT = config.Experiment(stage=config.Stage(name="base", size=64, model=config.UNet()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("run")
    tree = {
        "step": jnp.int32(3),
        "ema": {"dense": {"kernel": jnp.arange(64.0).reshape(8, 8), "bias": jnp.ones(8)}},
        "opt_state": (jnp.zeros(()), {"mu": jnp.full((8, 8), 0.5)}),
    }
    run_dir.write_config(folder, EXPERIMENT)
    writer = checkpoints.Checkpoints(folder)
    writer.save(3, tree, EXPERIMENT)
    writer.close()
    return folder, tree


def _target(tree, fsdp: int):
    devices = mesh.build(auto_layout.choose_axes(config.Mesh(fsdp=fsdp)))
    shardings = mesh.state_shardings(tree, devices, min_shard_bytes=0)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


@pytest.mark.parametrize("fsdp", [1, 4])
def test_round_trip_onto_any_mesh(saved, fsdp: int) -> None:
    folder, tree = saved
    target = _target(tree, fsdp)
    restored = checkpoints.Checkpoints(folder, read_only=True).restore(target)
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, restored, tree)
    assert restored["ema"]["dense"]["kernel"].sharding == target["ema"]["dense"]["kernel"].sharding


def test_the_average_alone(saved) -> None:
    folder, tree = saved
    target = {"ema": _target(tree, 1)["ema"]}
    restored = checkpoints.Checkpoints(folder, read_only=True).restore(target)
    assert set(restored) == {"ema"}
    np.testing.assert_array_equal(
        restored["ema"]["dense"]["kernel"], tree["ema"]["dense"]["kernel"]
    )


def test_what_does_not_fit_is_listed(saved) -> None:
    folder, tree = saved
    target = _target(tree, 1)
    target["ema"]["dense"]["bias"] = jax.ShapeDtypeStruct((9,), jnp.float32)
    with pytest.raises(ValueError, match=r"ema/dense/bias is \(8,\), wanted \(9,\)"):
        checkpoints.Checkpoints(folder, read_only=True).restore(target)
    target["ema"]["dense"]["scale"] = jax.ShapeDtypeStruct((8,), jnp.float32)
    with pytest.raises(ValueError, match="does not fit this config") as refusal:
        checkpoints.Checkpoints(folder, read_only=True).restore(target)
    assert "missing ema/dense/scale (8,)" in str(refusal.value)
    assert "ema/dense/bias is (8,), wanted (9,)" in str(refusal.value)


def test_the_config_comes_back(saved, tmp_path: Path) -> None:
    assert run_dir.read_config(saved[0]) == EXPERIMENT
    with pytest.raises(FileNotFoundError, match="is not a training run"):
        run_dir.read_config(tmp_path)
    for damage, what in [(b"{", "not JSON"), (b"\xff\xfe", "not JSON"), (b"{}", "missing key")]:
        (tmp_path / "config.json").write_bytes(damage)
        with pytest.raises(ValueError, match=f"config.json: .*{what}"):
            run_dir.read_config(tmp_path)


def test_missing_and_incomplete_checkpoints_are_named(saved, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        checkpoints.Checkpoints(tmp_path, read_only=True)
    empty = checkpoints.Checkpoints(tmp_path)
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
        checkpoints.Checkpoints(run, read_only=True).restore(_target(tree, 1))


def test_arrays_that_orbax_can_not_open_are_damage(saved, monkeypatch) -> None:
    """Orbax says of them that there is no metadata, and leaves it at that."""
    folder, tree = saved

    class Blind(checkpoints.ocp.Checkpointer):
        def metadata(self, item):
            return dataclasses.replace(super().metadata(item), item_metadata=None)

    monkeypatch.setattr(checkpoints.ocp, "Checkpointer", Blind)
    with pytest.raises(ValueError, match=r"damaged .what its files say of the arrays"):
        checkpoints.Checkpoints(folder, read_only=True).restore(_target(tree, 1))


def _several(folder: Path) -> tuple[checkpoints.Checkpoints, dict[int, dict]]:
    """A run with checkpoints 1 to 3, and what each holds."""
    saves = checkpoints.Checkpoints(folder, keep=3)
    trees = {}
    for step in (1, 2, 3):
        draw = jax.random.normal(jax.random.key(step), (64, 32))
        trees[step] = {"step": jnp.int32(step), "ema": {"kernel": draw, "bias": draw[0]}}
        saves.save(step, trees[step], EXPERIMENT)
    saves.wait()
    return saves, trees


def _files(folder: Path) -> list[Path]:
    """What a checkpoint needs: neither the config, which is not read, nor notes of Orbax's."""
    return sorted(
        file
        for part in ("state", "about")
        for file in (folder / part).rglob("*")
        if file.is_file() and file.stat().st_size
    )


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "zeros"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture
) -> None:
    """At random places of random files: the state is one that was saved, to the last bit."""
    saves, trees = _several(tmp_path / "run")
    saves.close()
    draw, set_aside = np.random.default_rng(len(damage)), 0
    for number in range(12):
        run = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "run", run)
        files = _files(run / "checkpoints" / "3")
        file = files[draw.integers(len(files))]
        _hurt(file, damage, draw)
        found = checkpoints.Checkpoints(run, keep=3)
        step, state = found.restore_newest(_target(trees[3], 1))
        found.close()
        assert step in (2, 3), (file, step)  # 3: what was hurt is not read
        jax.tree.map(np.testing.assert_array_equal, state, trees[step])
        said = capsys.readouterr().err
        assert ("checkpoints/3: the checkpoint is" in said) == (step == 2), (file, said)
        assert (run / "damaged" / "3").is_dir() == (step == 2)
        set_aside += step == 2
    assert set_aside


def test_reads_that_fail_beside_another_are_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio logs their stacks when they are freed, which may be in the middle of anything."""

    async def read(name: str) -> None:
        raise ValueError(f"{tmp_path}/{name}: damaged")

    async def read_all() -> None:
        tasks = [asyncio.create_task(read(name)) for name in ("kernel", "bias")]
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError(f"{tmp_path}/scale: damaged"))
        await asyncio.sleep(0)
        await tasks[0]

    with pytest.raises(errors.CorruptDataError), checkpoint_damage.name_damage(tmp_path):
        asyncio.run(read_all())
    gc.collect()
    logging.getLogger("asyncio").error("Another message of %s", tmp_path)
    # Only of this folder: what other tests have left may be freed here, too.
    messages = [message for message in caplog.messages if str(tmp_path) in message]
    assert messages == [f"Another message of {tmp_path}"]


def _hurt(file: Path, damage: str, draw: np.random.Generator) -> None:
    content = bytearray(file.read_bytes())
    place = int(draw.integers(len(content)))
    if damage == "flip":
        content[place] ^= 1 << int(draw.integers(8))
    elif damage == "zeros":
        content[place:] = bytes(len(content) - place)
    elif damage == "cut":
        del content[place:]
    if damage == "lose":
        file.unlink()
    else:
        file.write_bytes(content)


def test_without_a_whole_checkpoint_all_stay_where_they_are(tmp_path: Path) -> None:
    saves, trees = _several(tmp_path / "run")
    saves.close()
    for step in (1, 2, 3):
        for file in (tmp_path / "run" / "checkpoints" / f"{step}" / "state").rglob("_METADATA"):
            file.write_bytes(b"{")
    again = checkpoints.Checkpoints(tmp_path / "run", keep=3)
    with pytest.raises(ValueError, match=r"none of the 3 checkpoints in .* is whole: put one back"):
        again.restore_newest(_target(trees[3], 1))
    assert again.steps() == [1, 2, 3]
    again.close()


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("no rights"),
        OSError(24, "Too many open files"),
        MemoryError(),
        ValueError("UNAVAILABLE: the bucket does not answer"),
        RuntimeError("out of device memory"),
    ],
)
def test_what_is_no_damage_sets_nothing_aside(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, trees = _several(tmp_path)

    def fail(*_: object) -> None:
        raise Exception("Encountered error while reading") from error

    monkeypatch.setattr(checkpoints.ocp.Checkpointer, "restore", fail)
    with pytest.raises(Exception, match="Encountered error"):
        saves.restore_newest(_target(trees[3], 1))
    assert saves.steps() == [1, 2, 3]
    saves.close()


def test_newest_and_permanent_checkpoints_are_kept(tmp_path: Path) -> None:
    saves = checkpoints.Checkpoints(tmp_path, keep=2, keep_every=4)
    for step in range(1, 12):
        saves.save(step, {"step": jnp.int32(step)}, EXPERIMENT)
    saves.wait()
    assert saves.steps() == [4, 8, 10, 11]
    about = json.loads((tmp_path / "checkpoints" / "11" / "about" / "metadata").read_text())
    assert {"jax", "imagen_jax", "orbax-checkpoint"} <= set(about["versions"])
    saves.close()


def test_a_checkpoint_of_another_network_is_refused_and_stays(tmp_path: Path) -> None:
    saves, _ = _several(tmp_path)
    with pytest.raises(ValueError, match="does not fit this config"):
        saves.restore_newest({"other": jax.ShapeDtypeStruct((2,), jnp.float32)})
    assert saves.steps() == [1, 2, 3]
    saves.close()


def test_asking_for_the_steps_leaves_the_save_on_its_way_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = checkpoints.Checkpoints(tmp_path)
    # Of several processes that are preempted, Orbax measures the time since the save before.
    monkeypatch.setattr(saves._manager, "reached_preemption", lambda step: True)
    saves.save(1, {"kernel": jnp.ones((1000, 1000))}, EXPERIMENT)
    while not saves.steps():
        pass
    saves.wait()
    assert saves.steps() == [saves.latest()] == [1]
    saves.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: float
) -> None:
    saves = checkpoints.Checkpoints(tmp_path, keep=3)
    good = {"kernel": np.ones(3, np.float32), "count": np.array(0, np.int32)}
    for step, state in ((1, good), (2, {**good, "kernel": np.array([1, bad, 1], np.float32)})):
        saves.save(step, state, config.load("tiny/base8")[0])
        saves.wait()
    step, found = saves.restore_newest(good)
    assert step == 1
    np.testing.assert_array_equal(found["kernel"], good["kernel"])
    said = capsys.readouterr().err
    assert "checkpoints/2: the weights of this checkpoint are not finite: 1 arrays have NaN" in said
    assert f"such as kernel; set aside into {tmp_path}/damaged/2" in said
    assert saves.steps() == [1]
    saves.close()
