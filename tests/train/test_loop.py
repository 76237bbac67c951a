"""The loop over a small store: ahead of the devices by one step; told of damaged records."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_network import SMALL

from imagen_jax import config
from imagen_jax.data import damage, records, store, transforms
from imagen_jax.data.records import Record
from imagen_jax.data.store import Store
from imagen_jax.train import loop, program

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
    text = records.rounded(np.ones((2, WIDTH), np.float32), "bfloat16")
    made = [
        Record(key=str(i), captions=("",), images={SIDE: png}, texts=(text,)) for i in range(COUNT)
    ]
    for index in DAMAGED:
        made[index] = dataclasses.replace(made[index], images={SIDE: png[:40]})
    store.begin(target)
    store.write_shard(target, 0, made)
    store.write_empty(target, records.rounded(np.ones((1, WIDTH), np.float32), "bfloat16"))
    store.finish(target)
    return store.open(target.folder)


def test_a_run_goes_on_and_logs_how_many_records_it_lost(damaged: Store, tmp_path: Path) -> None:
    loop.train(experiment(0.2), tmp_path, store=damaged)  # one epoch
    listed = [json.loads(x) for x in (tmp_path / damage.FILE).read_text().splitlines()]
    assert sorted(entry["record"] for entry in listed) == DAMAGED
    logged = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["damaged"] for line in logged] == [
        sum(entry["step"] <= step for entry in listed) for step in (1, 2, 3)
    ]


def test_a_run_stops_where_too_much_is_damaged(damaged: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 of \d+ records .* more than data.max_damaged=0\.1 "):
        loop.train(experiment(0.1), tmp_path, store=damaged)


@jax.jit
def after_a_while(value: jax.Array) -> jax.Array:
    """A number from the value, a tenth of a second later."""
    matrix = jnp.full((300, 300), value)
    return jax.lax.fori_loop(0, 100, lambda _, x: jnp.sin(x @ x), matrix).mean()


def test_the_loop_is_one_step_ahead_of_the_devices(
    damaged: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, computed = [], []

    def slow(*given: Any, **named: Any) -> Any:
        # One device: simulated ones wait for each other, so that nothing can run ahead.
        work = build(*given, **named, devices=jax.devices()[:1])
        step = work.step()

        def train_step(*given: Any) -> Any:
            state, metrics = step(*given)
            losses.append(after_a_while(metrics["loss"]))
            return state, metrics | {"loss": losses[-1]}

        monkeypatch.setattr(program.Program, "step", lambda _: train_step)
        return work

    def stop(step: int) -> bool:
        computed.append([loss.is_ready() for loss in losses])
        return False

    build = program.build
    monkeypatch.setattr(program, "build", slow)
    longer = dataclasses.replace(experiment(0.2).train, steps=6, log_every=6, save_every=6)
    loop.train(
        dataclasses.replace(experiment(0.2), train=longer), tmp_path, store=damaged, stop=stop
    )
    assert [len(ready) for ready in computed] == [1, 2, 3, 4, 5, 6]
    assert max(ready.count(False) for ready in computed) == 1
