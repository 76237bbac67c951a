"""Runs that train adapters: what changes, what is saved, and how they are sampled."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_network import SMALL
from small_store import make_pairs

import imagen_jax
from imagen_jax import config, lora, rng
from imagen_jax.data.store.store import Store
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.pretrained.lora import with_lora
from imagen_jax.train import init_from, loop, sharded_step, state

COUNT, SIDE, WIDTH, LENGTH = 16, 4, 3, 6
ADAPTERS = config.Lora(rank=2, alpha=4.0, targets=("dense", "*conv_0"), dropout=0.1)


def experiment(adapters: config.Lora = ADAPTERS, **changes: Any) -> config.Experiment:
    options = {"steps": 4, "batch_size": 8, "log_every": 1, "save_every": 2} | changes
    return config.Experiment(
        stage=config.Stage(name="small", size=SIDE, model=SMALL),
        data=config.Data(threads=0, prefetch=0),
        text=config.Text(encoder="t5", width=WIDTH, max_length=LENGTH),
        optim=config.Optim(warmup_steps=0, learning_rate=1e-2, ema_decay=0.5),
        train=config.Train(**options),
        mesh=config.Mesh(fsdp=2, spatial=1, min_shard_bytes=16),
        lora=adapters,
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store") / "s"
    return make_pairs(folder, side=SIDE, width=WIDTH, length=LENGTH, count=COUNT)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("base"), seed=1)


def save_random(folder: Path, seed: int) -> Path:
    """A run of random weights, none of them zero."""
    program = sharded_step.build(experiment(config.Lora()))
    saves, start = checkpoints.Checkpoints(folder), program.init(rng.root(seed))
    draw = np.random.default_rng(seed)
    noisy = jax.tree.map(
        lambda x: x + np.float32(0.1) * draw.standard_normal(x.shape, np.float32), start.ema
    )
    saves.save(2, dataclasses.replace(start, ema=noisy), program.experiment)
    saves.close()
    run_dir.write_config(folder, program.experiment)
    return folder


def adapting(base: Path, **changes: Any) -> tuple[config.Experiment, init_from.InitFrom]:
    adapters = dataclasses.replace(ADAPTERS, base=str(base))
    return experiment(adapters, **changes), init_from.InitFrom(folder=base)


@pytest.fixture(scope="module")
def adapted(base: Path, pairs: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    wanted, source = adapting(base)
    loop.train(wanted, folder, store=pairs, source=source)
    return folder


def saved(run: Path, part: str = "ema") -> dict[str, tuple[int, ...]]:
    saves = checkpoints.Checkpoints(run, read_only=True)
    step = saves.latest()
    assert step is not None
    shapes = saves.shapes(step)
    return {n.removeprefix(f"{part}/"): s for n, s in shapes.items() if n.startswith(f"{part}/")}


@pytest.mark.slow
def test_only_adapters_are_saved(adapted: Path, base: Path) -> None:
    names = saved(adapted)
    assert names
    assert all(name.endswith(("/lora_A", "/lora_B")) for name in names)
    assert {name.rpartition("/")[0] for name in names} < {
        name.removesuffix("/kernel") for name in saved(base)
    }
    everything = checkpoints.Checkpoints(adapted, read_only=True).shapes(4)
    assert not [name for name in everything if name.startswith("frozen")]
    assert run_dir.read_config(adapted).lora.identity


@pytest.mark.slow
def test_the_run_samples_as_its_base_with_the_adapters_merged(adapted: Path, base: Path) -> None:
    run, plain = _load(adapted).stages[0], _load(base)
    merged = with_lora(plain, adapted).stages[0]
    told = dataclasses.replace(plain, words=frozenset({"red"}))
    assert with_lora(told, adapted).words == frozenset()  # those that the adapters saw are unknown
    before, one, other = (jax.device_get(s.device_params()) for s in (plain.stages[0], run, merged))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    _assert_changed(before, one)
    half = jax.device_get(with_lora(plain, adapted, weight=0.5).stages[0].device_params())
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a, (b + c) / 2, rtol=1e-5, atol=1e-6),
        half,
        before,
        one,
    )
    assert _load(adapted).experiments[0].lora == config.Lora()


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(
    adapted: Path, base: Path, pairs: Store, tmp_path: Path
) -> None:
    wanted, source = adapting(base)
    short = dataclasses.replace(wanted, train=dataclasses.replace(wanted.train, steps=2))
    constant = [
        dataclasses.replace(e, optim=dataclasses.replace(e.optim, schedule="constant"))
        for e in (short, wanted)
    ]
    loop.train(constant[0], tmp_path / "a", store=pairs, source=source)
    resumed = loop.train(constant[1], tmp_path / "a", store=pairs, source=source)
    whole = loop.train(constant[1], tmp_path / "b", store=pairs, source=source)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


@pytest.mark.slow
def test_the_frozen_network_stays_and_adapters_alone_have_state(
    base: Path, pairs: Store, tmp_path: Path
) -> None:
    wanted, source = adapting(base)
    after = loop.train(wanted, tmp_path, store=pairs, source=source)
    kept = _load(base).stages[0].device_params()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after.frozen), jax.device_get(kept))
    whole = sharded_step.build(experiment(config.Lora())).shapes
    assert _count(after.opt_state) < 0.7 * _count(whole.opt_state)
    assert _count(after.ema) < 0.7 * _count(whole.ema)


def test_a_run_without_a_trained_network_is_refused(pairs: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lora.rank=2 trains adapters of a trained network: give"):
        loop.train(experiment(), tmp_path / "a", store=pairs)


def test_a_run_of_adapters_is_no_network_to_begin_with(tmp_path: Path) -> None:
    run_dir.write_config(tmp_path, experiment())
    source = init_from.InitFrom(folder=tmp_path)
    wanted = sharded_step.build(experiment(config.Lora())).target().params
    with pytest.raises(ValueError, match=r"run of adapters \(lora\.rank=2\).*`imagen export"):
        source.read(wanted)


def test_another_runs_folder_is_refused_before_anything_is_built(
    base: Path, pairs: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, source = adapting(base)
    run_dir.write_config(tmp_path, wanted)
    other = dataclasses.replace(wanted, lora=dataclasses.replace(wanted.lora, rank=3))
    whole = dataclasses.replace(wanted, lora=config.Lora())
    for name in ("build", "abstract_run"):
        place = sharded_step if name == "build" else state
        monkeypatch.setattr(place, name, None)
    for changed in (other, whole):
        with pytest.raises(ValueError, match=r"rank: 2 there, [30] here"):
            loop.train(changed, tmp_path, store=pairs, source=source)


def test_fresh_adapters_come_without_a_random_network(base: Path) -> None:
    """The frozen network is read, and a random one would double the memory."""
    program = sharded_step.build(adapting(base)[0])
    fresh = program.init(rng.root(0))
    assert fresh.frozen is None
    assert _count(fresh) < _count(program.shapes.frozen)


@pytest.mark.slow
def test_a_runs_adapters_refuse_another_base_and_a_file_warns(
    adapted: Path, base: Path, tmp_path: Path
) -> None:
    from imagen_jax.pretrained.lora import write_run

    changed = _load(save_random(tmp_path / "base", seed=2))
    with pytest.raises(ValueError, match=r"trained on weights '\w+', and those here are \w+: "):
        with_lora(changed, adapted).stages[0].device_params()
    file = tmp_path / "small.safetensors"
    write_run(adapted, file)
    with pytest.warns(UserWarning, match=r"images may not be what they were trained for"):
        with_lora(changed, file).stages[0].device_params()
    twice = with_lora(with_lora(_load(base), adapted), file, weight=-1.0)
    before, after = (x.stages[0].device_params() for x in (_load(base), twice))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), before, after)


@pytest.mark.slow
def test_other_adapters_and_another_base_are_refused(
    adapted: Path, base: Path, pairs: Store, tmp_path: Path
) -> None:
    wanted, source = adapting(base)
    other = dataclasses.replace(wanted, lora=dataclasses.replace(wanted.lora, rank=3))
    with pytest.raises(ValueError, match="rank: 2 there, 3 here"):
        loop.train(other, adapted, store=pairs, source=source)
    changed = save_random(tmp_path / "base", seed=2)
    with pytest.raises(ValueError, match=r"identity: .* there, "):
        loop.train(wanted, adapted, store=pairs, source=init_from.InitFrom(folder=changed))


@pytest.mark.slow
def test_a_base_that_changed_or_vanished_is_refused(adapted: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / "checkpoints").symlink_to(adapted / "checkpoints")
    text = json.loads((adapted / "config.json").read_text())
    text["lora"]["identity"] = "0123"
    (place / "config.json").write_text(json.dumps(text))
    with pytest.raises(ValueError, match="trained on weights '0123'"):
        _load(place).stages[0].device_params()
    text["lora"]["base"] = str(tmp_path / "nowhere")
    (place / "config.json").write_text(json.dumps(text))
    with pytest.raises(FileNotFoundError, match="no trained stage any more: put it back"):
        _load(place)


@pytest.mark.slow
def test_files_of_a_run_are_merged_as_the_run_is(adapted: Path, base: Path, tmp_path: Path) -> None:
    from imagen_jax.pretrained.lora import write_run

    file = tmp_path / "small.safetensors"
    write_run(adapted, file)
    plain = _load(base)
    one, other = (
        jax.device_get(with_lora(plain, x).stages[0].device_params()) for x in (file, adapted)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    with pytest.raises(ValueError, match="no stage 'large' in this cascade; it has"):
        with_lora(plain, file, stage="large")
    with pytest.raises(FileNotFoundError, match="no adapters at"):
        with_lora(plain, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is a run that trained all weights: sample it itself"):
        with_lora(plain, base)


def _assert_changed(before: Any, after: Any) -> None:
    pairs = lora.targets.kernels(before), lora.targets.kernels(after)
    chosen = lora.targets.select_kernels(before, ADAPTERS.targets)
    for name, kernel in pairs[0].items():
        assert np.array_equal(kernel, pairs[1][name]) == (name not in chosen), name


def _count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def _load(folder: Path) -> imagen_jax.Imagen:
    """The cascade, without its text encoder."""
    return imagen_jax.load(folder, offload=True)
