"""The training loop of one stage: restore or initialise, then step, log, save."""

import errno
import gc
from collections.abc import Callable, Sequence

import jax

from imagen_jax import config, rng
from imagen_jax.data import pipeline
from imagen_jax.data.store.store import Store
from imagen_jax.io import finite, log_files, run_dir
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import compilation_cache, mesh
from imagen_jax.runtime import exit_codes
from imagen_jax.train import (
    anomalies,
    checkpointing,
    init_from,
    resolve,
    resuming,
    sharded_step,
    state,
)
from imagen_jax.train.goodput import GoodputTracker
from imagen_jax.train.logger import RunLogger
from imagen_jax.train.progress import ProgressMeter
from imagen_jax.train.train_metrics import Throughput
from imagen_jax.types import Params

Hook = Callable[[int, Params, ProgressMeter], None]  # (step, ema, progress), after each step


def never_stop(step: int) -> bool:
    """Nobody asks this run to stop."""
    return False


def train(
    experiment: config.Experiment,
    workdir: Workdir,
    *,
    store: Store,
    source: init_from.InitFrom | None = None,
    hooks: Sequence[Hook] = (),
    stop: Callable[[int], bool] = never_stop,
) -> state.TrainState:
    """Train to `experiment.train.steps`, resuming from the newest whole checkpoint in `workdir`.

    What is worth saving is saved before anything is logged. No log that fails ends the run.

    A run that is not resumed begins with the weights of `source`, or fresh ones.
    `stop` is asked after each step, on every process, whether to save and end.
    Errors: ValueError when the store or the checkpoint doesn't fit the config, or when more of the
    store than `experiment.data.max_damaged` is damaged; health.Diverged when too many steps in a
    row were not finite; exits.Preempted once `stop` said so.
    """
    options = experiment.train
    compilation_cache.use_cache()
    experiment = resolve.resolve(experiment, store=store)
    changed = resuming.check(workdir, experiment)
    if jax.process_index() == 0:
        print(f"{experiment.stage.name}: compiling ...", flush=True)

    # ---- shapes -> shardings -> arrays
    ledger = GoodputTracker()
    work = sharded_step.build(experiment)
    root = rng.root(options.seed)
    saves = checkpointing.CheckpointWriter(workdir, experiment)
    start, current = saves.restore(work.target())
    begun = ""
    if current is None:
        current = work.init(root)
        if source is not None:
            current, begun = source.begin(current)
            finite.require_finite(current, f"{source.folder}: the weights")
        current = state.with_empty_prompt(current, store.empty().array())
    else:
        begun = f"resumed from step {start}"
        if changed:
            begun += f", with {', '.join(changed)}"
        if source is not None:
            begun += f"; the weights of {source.folder} were for its beginning"
    if jax.process_index() == 0:
        _write_config(workdir, experiment)
    saves.has_config = True
    train_step, share = work.step(), work.share
    batches = pipeline.example_stream(
        store,
        stage=experiment.stage,
        data=experiment.data,
        share=share,
        seed=options.seed,
        start_step=start,
    )
    hardware = Throughput(
        sharded_step.flops_per_image(experiment), work.devices.devices.flatten().tolist()
    )
    diary = RunLogger(workdir, experiment, store, speed=hardware, start=start, ledger=ledger)
    if begun:
        diary.say(begun)

    # ---- steps
    before: dict[str, jax.Array] = {}
    owed = False  # a save that came due while steps were skipped
    try:
        for number in range(start + 1, options.steps + 1):
            with ledger.spend("data"):
                loaded = next(batches)
            diary.loaded(number, loaded)
            with mesh.activate(work.devices):
                # Held by no name: on a CPU it is the memory that worker processes share.
                current, scalars = train_step(
                    current,
                    pipeline.to_device(loaded.batch, work.batch_shardings, share=share),
                    root,
                )
            # One step ahead of the devices is enough to keep them busy. Left alone, jax runs on by
            # some thirty: their batches fill memory, and a save waits until all are computed.
            jax.block_until_ready(before)
            before = scalars
            diary.stepped(number, scalars)
            stopping = stop(number)
            last = number == options.steps or stopping
            due = last or owed or saves.is_due(number)
            if sentence := saves.trouble():
                diary.say(sentence)
            due |= saves.is_owed()
            logs = due or number % options.log_every == 0
            # A skipped step has nothing to save, and its save would drive an older one out.
            owed = logs and not diary.judge() and due and not last
            with ledger.spend("save"):
                if due and not owed:
                    saves.save(number, current)
                if last:
                    saves.finish(number, current)
            if logs:
                diary.flush(number, current)
            if due:
                diary.push()
            with ledger.spend("hooks"):
                for hook in hooks:
                    hook(number, current.ema, diary.progress)
            diary.beat()
            if stopping:
                raise exit_codes.Preempted(
                    f"{experiment.stage.name} was asked to stop and is saved at step {number}: "
                    "give the same command to go on"
                )
        diary.say(ledger.sentence())
    except anomalies.Diverged as error:
        raise anomalies.Diverged(
            f"{error}; {saves.way_back(error.proven)}", error.proven
        ) from error
    finally:
        batches.close()  # ends worker processes
        loaded = None
        if experiment.data.workers:
            gc.collect()  # jax, too, lets go of what they shared, before their system asks for it
        diary.close()
        saves.close()
    return current


def _write_config(workdir: Workdir, experiment: config.Experiment) -> None:
    """A run that has a config goes on where there is no room for another; checkpoints have it, too.

    Errors: OSError, which names the folder of a new run that there is no room for.
    """
    try:
        run_dir.write_config(workdir, experiment)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if not (workdir / run_dir.CONFIG).is_file():
            raise OSError(
                f"{workdir}: there is no room for a run ({log_files.failure_reason(error)}): "
                f"make some, or "
                "give another --workdir"
            ) from error
        log_files.report_failure(str(workdir / run_dir.CONFIG), error)
