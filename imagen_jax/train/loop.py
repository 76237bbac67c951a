"""The training loop of one stage: restore or initialise, then step, log, save."""

import errno
import gc
from collections.abc import Callable, Sequence

import jax

from imagen_jax import config, rng
from imagen_jax.data import pipeline
from imagen_jax.data.store.store import Store
from imagen_jax.io import log_files, nonfinite_arrays, run_dir
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import compilation_cache, mesh
from imagen_jax.runtime import exit_codes
from imagen_jax.train import (
    anomalies,
    checkpointing,
    init_from,
    optim,
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
    """Never ask a run to stop."""
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

    State is saved before anything is logged, and no log that fails ends the run.

    A run that is not resumed starts with the weights of `source`, or random ones. `stop` is called
    after each step, on every process, and tells whether to save and end.
    Errors: ValueError when the store or the checkpoint doesn't fit the config, or when more of the
    store than `experiment.data.max_damaged` is damaged; anomalies.Diverged when too many steps in a
    row were not finite; exit_codes.Preempted once `stop` returns True.
    """
    options = experiment.train
    compilation_cache.use_cache()
    experiment = resolve.resolve(experiment, store=store)
    changed = resuming.changed_options(workdir, experiment)
    if jax.process_index() == 0:
        print(f"{experiment.stage.name}: compiling ...", flush=True)

    # ---- shapes -> shardings -> arrays
    goodput = GoodputTracker()
    program = sharded_step.build(experiment)
    root = rng.root(options.seed)
    checkpoints = checkpointing.CheckpointWriter(workdir, experiment)
    start, current = checkpoints.restore(program.target())
    origin = ""
    if current is None:
        current = program.init(root)
        if source is not None:
            current, origin = source.initialize(current)
            nonfinite_arrays.require_finite(current, f"{source.folder}: the weights")
        current = state.with_empty_prompt(current, store.empty().array())
    else:
        origin = f"resumed from step {start}"
        if changed:
            origin += f", with {', '.join(changed)}"
        if source is not None:
            origin += f"; the weights of {source.folder} were for its beginning"
    if jax.process_index() == 0:
        _write_config(workdir, experiment)
    checkpoints.has_config = True
    train_step, share = program.step(), program.share
    batches = pipeline.example_stream(
        store,
        stage=experiment.stage,
        data=experiment.data,
        share=share,
        seed=options.seed,
        start_step=start,
    )
    throughput = Throughput(
        sharded_step.flops_per_image(experiment), program.devices.devices.flatten().tolist()
    )
    logger = RunLogger(workdir, experiment, store, speed=throughput, start=start, goodput=goodput)
    if origin:
        logger.info(origin)
    if not start and (
        sentence := optim.describe_long_warmup(experiment.optim, steps=options.steps)
    ):
        logger.info(sentence)

    # ---- steps
    before: dict[str, jax.Array] = {}
    save_pending = False  # a save that came due while steps were skipped
    try:
        for number in range(start + 1, options.steps + 1):
            with goodput.spend("data"):
                loaded = next(batches)
            logger.record_batch(number, loaded)
            with mesh.activate(program.devices):
                # Bound to no name: on a CPU it is the memory that worker processes share.
                current, scalars = train_step(
                    current,
                    pipeline.to_device(loaded.batch, program.batch_shardings, share=share),
                    root,
                )
            # One step ahead of the devices is enough to keep them busy. Left alone, jax runs ahead
            # by some thirty: their batches fill memory, and a save waits until all are computed.
            jax.block_until_ready(before)
            before = scalars
            logger.record_step(number, scalars)
            stopping = stop(number)
            last = number == options.steps or stopping
            due = last or save_pending or checkpoints.is_due(number)
            if sentence := checkpoints.failure():
                logger.info(sentence)
            due |= checkpoints.is_retry_due()
            logs = due or number % options.log_every == 0
            # A skipped step has nothing to save, and its save would drive an older one out.
            save_pending = logs and not logger.check_steps() and due and not last
            with goodput.spend("save"):
                if due and not save_pending:
                    checkpoints.save(number, current)
                if last:
                    checkpoints.finish(number, current)
            if logs:
                logger.flush(number, current)
            if due:
                logger.upload()
            with goodput.spend("hooks"):
                for hook in hooks:
                    hook(number, current.ema, logger.progress)
            logger.heartbeat()
            if stopping:
                raise exit_codes.Preempted(
                    f"{experiment.stage.name} was asked to stop and is saved at step {number}: "
                    "give the same command to resume"
                )
        logger.info(goodput.summary())
    except anomalies.Diverged as error:
        raise anomalies.Diverged(
            f"{error}; {checkpoints.resume_advice(error.last_sound)}", error.last_sound
        ) from error
    finally:
        batches.close()  # ends worker processes
        loaded = None
        if experiment.data.workers:
            gc.collect()  # jax, too, frees what they shared, before it is asked for
        logger.close()
        checkpoints.close()
    return current


def _write_config(workdir: Workdir, experiment: config.Experiment) -> None:
    """Write config.json; a run that has one resumes even where there is no room for it.

    Errors: OSError, naming the folder of a new run that there is no room for.
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
