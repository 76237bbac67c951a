"""The loop over a small store: ahead of the devices by one step; told of damaged records."""

import contextlib
import dataclasses
import gc
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_network import SMALL

from imagen_jax import config
from imagen_jax.data import corrupt_records
from imagen_jax.data.images import transforms
from imagen_jax.data.store import records, store
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.store import Store
from imagen_jax.io import checkpoints, log_files
from imagen_jax.runtime import exit_codes
from imagen_jax.train import anomalies, init_from, loop, progress, run_lease, sharded_step

COUNT, SIDE, WIDTH, LENGTH = 24, 4, 3, 6
DAMAGED = [3, 4, 20]


def experiment(most: float) -> config.Experiment:
    return config.Experiment(
        stage=config.Stage(name="small", size=SIDE, model=SMALL),
        data=config.Data(threads=0, prefetch=0, max_damaged=most),
        text=config.Text(encoder="t5", width=WIDTH, max_length=LENGTH),
        train=config.Train(steps=3, batch_size=8, log_every=1, save_every=3),
        mesh=config.Mesh(fsdp=1, spatial=1),
    )


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Store:
    target = Store(
        folder=tmp_path_factory.mktemp("store") / "s",
        dataset="fake",
        split="train",
        count=COUNT,
        sizes=(SIDE,),
        encoder="t5",
        identity="0",
        vocabulary="1",
        width=WIDTH,
        max_length=LENGTH,
    )
    png = transforms.encode(np.full((SIDE, SIDE, 3), 100, np.uint8))
    text = records.round_encoding(np.ones((2, WIDTH), np.float32), "bfloat16")
    made = [
        Record(key=str(i), captions=("",), images={SIDE: png}, texts=(text,)) for i in range(COUNT)
    ]
    for index in DAMAGED:
        made[index] = dataclasses.replace(made[index], images={SIDE: png[:40]})
    store.begin_store(target)
    store.write_shard(target, 0, made)
    store.write_empty(target, records.round_encoding(np.ones((1, WIDTH), np.float32), "bfloat16"))
    store.finish_store(target)
    return store.open_store(target.folder)


def test_a_run_goes_on_and_logs_how_many_records_it_lost(damaged: Store, tmp_path: Path) -> None:
    loop.train(experiment(0.2), tmp_path, store=damaged)  # one epoch
    listed = [json.loads(x) for x in (tmp_path / corrupt_records.FILE).read_text().splitlines()]
    assert sorted(entry["record"] for entry in listed) == DAMAGED
    logged = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["damaged"] for line in logged] == [
        sum(entry["step"] <= step for entry in listed) for step in (1, 2, 3)
    ]


def test_a_run_stops_where_too_much_is_damaged(damaged: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 of \d+ records .* more than data.max_damaged=0\.1 "):
        loop.train(experiment(0.1), tmp_path, store=damaged)


def test_weights_that_are_refused_leave_no_folder(damaged: Store, tmp_path: Path) -> None:
    class Refused(init_from.InitFrom):
        def initialize(self, current):
            return jax.tree.map(lambda x: x * np.float32("nan"), current.params), ""

    folder, source = tmp_path / "runs" / "new", Refused(folder=tmp_path, take="ema", partial=False)
    with run_lease.hold_run(folder), pytest.raises(ValueError, match="the weights are not finite"):
        loop.train(experiment(0.2), folder, store=damaged, source=source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_memory_of_worker_processes_is_given_back(
    damaged: Store, tmp_path: Path, interrupted: bool
) -> None:
    """On a CPU jax holds it until it is told; at the very end Python warns of it."""
    wanted = experiment(0.2)
    wanted = dataclasses.replace(wanted, data=config.Data(workers=1, prefetch=1, max_damaged=0.2))
    seen: list[int] = []

    def count(*_: object) -> None:
        seen.append(len(_shared()))

    stops = pytest.raises(exit_codes.Preempted) if interrupted else contextlib.nullcontext()
    with stops:
        loop.train(
            wanted,
            tmp_path,
            store=damaged,
            hooks=[count],
            stop=lambda step: interrupted and step > 1,
        )
    assert min(seen) > 0
    assert not _shared()


def _shared() -> list[object]:
    return [x for x in gc.get_objects() if type(x).__name__ == "SharedMemoryArray"]


@jax.jit
def after_a_while(value: jax.Array) -> jax.Array:
    """A number from the value, a tenth of a second later."""
    matrix = jnp.full((300, 300), value)
    return jax.lax.fori_loop(0, 100, lambda _, x: jnp.sin(x @ x), matrix).mean()


@pytest.mark.slow
def test_the_loop_is_one_step_ahead_of_the_devices(
    damaged: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, computed = [], []

    def slow(*given: Any, **named: Any) -> Any:
        # One device: simulated ones wait for each other, so that nothing can run ahead.
        one = dataclasses.replace(given[0], layout=None)
        work = build(one, devices=jax.devices()[:1])
        step = work.step()

        def train_step(*given: Any) -> Any:
            state, metrics = step(*given)
            losses.append(after_a_while(metrics["loss"]))
            return state, metrics | {"loss": losses[-1]}

        monkeypatch.setattr(sharded_step.ShardedStep, "step", lambda _: train_step)
        return work

    def stop(step: int) -> bool:
        computed.append([loss.is_ready() for loss in losses])
        return False

    build = sharded_step.build
    monkeypatch.setattr(sharded_step, "build", slow)
    longer = dataclasses.replace(experiment(0.2).train, steps=6, log_every=6, save_every=6)
    loop.train(
        dataclasses.replace(experiment(0.2), train=longer), tmp_path, store=damaged, stop=stop
    )
    assert [len(ready) for ready in computed] == [1, 2, 3, 4, 5, 6]
    assert max(ready.count(False) for ready in computed) == 1


FULL = Path("/dev/full")  # which takes no byte


def test_logs_that_cannot_be_written_cost_nothing_else(
    damaged: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A full disk, of the logs alone: each log is told once, and the run is trained and saved."""
    append = log_files.append_line
    logs = ("metrics.jsonl", corrupt_records.FILE, anomalies.FILE)

    def append_to_full(file: Path, data: bytes) -> None:
        try:
            append(FULL if "tfevents" in file.name or file.name in logs else file, data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(file)) from error

    monkeypatch.setattr(log_files, "append_line", append_to_full)
    loop.train(experiment(0.2), tmp_path, store=damaged)
    assert checkpoints.Checkpoints(tmp_path, read_only=True).latest() == 3
    told = capsys.readouterr().err
    for name in (
        tmp_path / "metrics.jsonl",
        tmp_path / corrupt_records.FILE,
        "TensorBoard's events",
    ):
        sentence = f"{name}: not written (No space left on device); the run continues without it"
        assert told.count(sentence) == 1


def test_what_is_worth_saving_is_saved_before_it_is_logged(
    damaged: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress.ProgressMeter, "flush", fails)
    every = dataclasses.replace(experiment(0.2).train, save_every=1)
    with pytest.raises(OSError, match="No space"):
        loop.train(dataclasses.replace(experiment(0.2), train=every), tmp_path, store=damaged)
    assert checkpoints.Checkpoints(tmp_path, read_only=True).steps() == [1]


def test_half_a_line_is_taken_away_at_the_start(damaged: Store, tmp_path: Path) -> None:
    for name in ("metrics.jsonl", corrupt_records.FILE, anomalies.FILE):
        (tmp_path / name).write_text('{"step": 0, "record": 3}\n{"step": 4, "lo')
    loop.train(experiment(0.2), tmp_path, store=damaged)
    for name, steps in (("metrics.jsonl", [0, 1, 2, 3]), (anomalies.FILE, [0])):
        lines = (tmp_path / name).read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == steps


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "kept"), [(3e38, [2, 3]), (1e17, [3, 4])])
def test_a_run_that_diverged_goes_on_from_its_last_sound_checkpoint(
    damaged: Store, tmp_path: Path, rate: float, kept: list[int]
) -> None:
    """3e38: no update is finite. 1e17: one is, and no loss is finite after it."""

    def run(rate: float, steps: int) -> None:
        optim = config.Optim(
            kind="adam", learning_rate=rate, warmup_steps=0, schedule="constant", clip_norm=None
        )
        train = config.Train(
            steps=steps, batch_size=8, log_every=1, save_every=1, keep=2, max_skipped=3
        )
        changed = dataclasses.replace(experiment(0.2), optim=optim, train=train)
        loop.train(changed, tmp_path, store=damaged)

    run(1e-3, 3)
    with pytest.raises(anomalies.Diverged) as told:
        run(rate, 20)
    steps = checkpoints.Checkpoints(tmp_path, read_only=True).steps()
    assert steps == kept  # none was driven out by saves of skipped steps
    commands = re.findall("`(.*?)`", str(told.value))
    assert len(commands) == (kept[-1] > 3), told.value
    assert "step 3" in str(told.value)
    for command in commands:
        subprocess.run(command, shell=True, check=True)
    run(1e-3, 6)
    lines = log_files.read_entries(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if np.isfinite(line["loss"])][-3:] == [4, 5, 6]
