"""Cost of surviving faults: guarded step, bookkeeping and saves, as shares of a training step.

    python benchmarks/checkpoint_overhead.py                          quickstart/base16
    python benchmarks/checkpoint_overhead.py imagen/base64_500m --batch 64

A bare step (loss, gradient, optimiser, EMA) and ours (which also skips what is not finite, and has
norms by module group) take turns; so do blocks of steps with and without a save before them.
"""

import dataclasses
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import _timing
import jax
import optax
import tyro

from imagen_jax import config, rng
from imagen_jax.io import checksums
from imagen_jax.parallel import mesh
from imagen_jax.runtime import watchdog
from imagen_jax.runtime.preemption import PreemptionWatch
from imagen_jax.train import checkpointing, optim, sharded_step, state
from imagen_jax.train import step as steps
from imagen_jax.train.ema import update_ema
from imagen_jax.train.goodput import GoodputTracker

BOOKKEEPING = 1000  # turns of the loop's own work


@dataclasses.dataclass(frozen=True)
class Options:
    """Measured run."""

    config: tyro.conf.Positional[str] = "quickstart/base16"
    """A config of one stage."""
    batch: int | None = None
    """Training batch over all devices. Default: the config's."""
    repeats: int = 40
    """Timed steps of each kind, in turns; medians count."""
    blocks: int = 7
    """Blocks of steps with a save, and as many without, in turns."""
    block: int = 40
    """Steps of a block: the save has to end within it."""


def main() -> None:
    """Measure and print a table."""
    options = tyro.cli(Options, description=__doc__)
    (experiment,) = config.load(options.config)
    if options.batch is not None:
        train = dataclasses.replace(experiment.train, batch_size=options.batch)
        experiment = dataclasses.replace(experiment, train=train)
    print(
        f"{experiment.stage.name}, batch {experiment.train.batch_size}, {jax.device_count()} x "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}",
        flush=True,
    )
    work = sharded_step.build(experiment)
    batch = _timing.batch(work)
    bare, ours = _Runner(work, _bare(work), batch), _Runner(work, work.step(), batch)
    bare_seconds, guarded = _timing.in_turns([bare, ours], options.repeats)
    books = _bookkeeping()
    with tempfile.TemporaryDirectory() as folder:
        stall, cost, summed = _saves(Path(folder), experiment, ours, options)
    every = experiment.train.save_every
    shares = {
        "guarded step": (guarded / bare_seconds - 1, f"{1000 * (guarded - bare_seconds):.2f} ms"),
        "bookkeeping": (books / bare_seconds, f"{1e6 * books:.0f} us a step"),
        f"saves, one in {every} steps": (
            cost / every / bare_seconds,
            f"{1000 * stall:.0f} ms stall a save, of it {1000 * summed:.0f} ms for the "
            f"fingerprint; {1000 * cost:.0f} ms with the steps it slows down",
        ),
    }
    print(f"\na bare step takes {1000 * bare_seconds:.2f} ms\n")
    print("| what | share of it | |\n|---|---|---|")
    for what, (share, said) in shares.items():
        print(f"| {what} | {share:+.2%} | {said} |")
    print(f"| together | {sum(share for share, _ in shares.values()):+.2%} | |")


class _Runner:
    """A step and the state that it changes; a call waits for its end."""

    def __init__(self, work: sharded_step.ShardedStep, step: Any, batch: Any) -> None:
        self.work, self.step, self.batch = work, step, batch
        self.key = rng.root(0)
        self.state = work.init(self.key)

    def __call__(self) -> None:
        with mesh.activate(self.work.devices):
            self.state, metrics = self.step(self.state, self.batch, self.key)
        jax.block_until_ready(metrics)


def _bare(work: sharded_step.ShardedStep) -> Any:
    """The step as textbooks have it."""
    experiment = work.experiment
    loss_of = steps.loss_function(experiment.stage, work.module)

    def train_step(old: state.TrainState, batch: Any, key: jax.Array) -> Any:
        step_key = rng.fold(key, "step", old.step)
        grads, metrics = steps.gradients(
            loss_of, old.params, batch, step_key, parts=experiment.micro_batches
        )
        norm = optax.tree.norm(grads)
        opt_state, updates = optim.update(work.rule, grads, old.opt_state, old.params, norm=norm)
        params = optax.apply_updates(old.params, updates)
        step = old.step + 1
        ema = update_ema(old.ema, params, step, decay=experiment.optim.ema_decay)
        return state.TrainState(step=step, params=params, ema=ema, opt_state=opt_state), metrics

    whole = mesh.replicated_sharding(work.devices)
    return jax.jit(
        train_step,
        in_shardings=(work.shardings, work.batch_shardings, whole),
        out_shardings=(work.shardings, whole),
        donate_argnums=0,
    )


def _bookkeeping() -> float:
    """Seconds per step of the loop's other work: asking for a stop, timing, the watchdog."""
    ledger, watch, dog = GoodputTracker(), PreemptionWatch(), watchdog.Watchdog(Path("unused"))
    start = time.perf_counter()
    for step in range(BOOKKEEPING):
        for part in ("data", "save", "hooks"):
            with ledger.spend(part):
                pass
        watch.stops_after(step)
        dog.beat()
    return (time.perf_counter() - start) / BOOKKEEPING


def _saves(
    folder: Path, experiment: config.Experiment, run: _Runner, options: Options
) -> tuple[float, float, float]:
    """Seconds: stall of a save, its whole cost, and its fingerprint's part; medians."""
    train = dataclasses.replace(experiment.train, keep=1)
    saves = checkpointing.CheckpointWriter(folder, dataclasses.replace(experiment, train=train))
    numbers, stalls = itertools.count(1), []

    def block(*, saved: bool) -> float:
        start = time.perf_counter()
        if saved:
            before = saves.stall_seconds
            saves.save(next(numbers), run.state)
            stalls.append(saves.stall_seconds - before)
        for _ in range(options.block):
            run()
        return time.perf_counter() - start

    block(saved=True)  # compiles the fingerprint
    stalls.clear()
    pairs = [(block(saved=False), block(saved=True)) for _ in range(options.blocks)]
    (summed,) = _timing.in_turns([lambda: checksums.compute(run.state)], options.blocks)
    saves.close()
    cost = statistics.median(b for _, b in pairs) - statistics.median(a for a, _ in pairs)
    return statistics.median(stalls), cost, summed


if __name__ == "__main__":
    main()
