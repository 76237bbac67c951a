"""The training loop of one stage: restore or initialise, then step, log, save."""

from collections.abc import Callable, Sequence

import jax

from imagen_jax import config
from imagen_jax.data import pipeline
from imagen_jax.data.store.store import Store
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import mesh
from imagen_jax.runtime import exit_codes
from imagen_jax.train import anomalies
from imagen_jax.train.init_from import InitFrom
from imagen_jax.train.progress import ProgressMeter
from imagen_jax.train.run import TrainingRun, begin
from imagen_jax.train.state import TrainState

# (step, state, progress), after each step.
Hook = Callable[[int, TrainState, ProgressMeter], None]


def never_stop(step: int) -> bool:
    """Never ask a run to stop."""
    return False


def train(
    experiment: config.Experiment,
    workdir: Workdir,
    *,
    store: Store,
    source: InitFrom | None = None,
    hooks: Sequence[Hook] = (),
    stop: Callable[[int], bool] = never_stop,
) -> TrainState:
    """Train to `experiment.train.steps`, resuming from the newest whole checkpoint in `workdir`.

    State is saved before anything is logged, and no log that fails ends the run.

    A run that is not resumed starts with the weights of `source`, or random ones. `stop` is called
    after each step, on every process, and tells whether to save and end.
    Errors: ValueError when the store or the checkpoint doesn't fit the config, or when more of the
    store than `experiment.data.max_damaged` is damaged; anomalies.Diverged when too many steps in a
    row were not finite; exit_codes.Preempted once `stop` returns True.
    """
    run, current = begin(experiment, workdir, store=store, source=source)
    try:
        current = _make_steps(run, current, hooks=hooks, stop=stop)
        run.logger.info(run.goodput.summary())
    except anomalies.Diverged as error:
        raise anomalies.Diverged(
            f"{error}; {run.checkpoints.resume_advice(error.last_sound)}", error.last_sound
        ) from error
    finally:
        run.close()
    return current


def _make_steps(
    run: TrainingRun,
    current: TrainState,
    *,
    hooks: Sequence[Hook],
    stop: Callable[[int], bool],
) -> TrainState:
    """Make all steps that are left; save and log as they fall due.

    Errors: as `train`.
    """
    before: dict[str, jax.Array] = {}
    save_pending = False  # a save that came due while steps were skipped
    for number in range(run.start + 1, run.experiment.train.steps + 1):
        current, scalars = _make_step(run, number, current)
        # One step ahead of the devices is enough to keep them busy. Left alone, jax runs ahead
        # by some thirty: their batches fill memory, and a save waits until all are computed.
        jax.block_until_ready(before)
        before = scalars
        run.logger.record_step(number, scalars)
        stopping = stop(number)
        last = number == run.experiment.train.steps or stopping
        save_pending = _save_and_log(run, number, current, last=last, due=save_pending)
        with run.goodput.spend("hooks"):
            for hook in hooks:
                hook(number, current, run.logger.progress)
        run.logger.heartbeat()
        if stopping:
            raise exit_codes.Preempted(
                f"{run.experiment.stage.name} was asked to stop and is saved at step {number}: "
                "give the same command to resume"
            )
    return current


def _make_step(
    run: TrainingRun, number: int, current: TrainState
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Load a batch and train on it; `current` is donated."""
    loaded = None
    try:
        with run.goodput.spend("data"):
            loaded = next(run.batches)
        run.logger.record_batch(number, loaded)
        with mesh.activate(run.program.devices):
            # Bound to no name: on a CPU it is the memory that worker processes share.
            return run.train_step(
                current,
                pipeline.to_device(loaded.batch, run.program.batch_shardings, share=run.share),
                run.root,
            )
    finally:
        loaded = None  # an error's traceback would keep it


def _save_and_log(
    run: TrainingRun, number: int, current: TrainState, *, last: bool, due: bool
) -> bool:
    """Save and log what falls due after a step; tell whether a save has to wait for a sound one.

    `due` is whether one waits already. Errors: anomalies.Diverged, and as `CheckpointWriter.save`.
    """
    due = last or due or run.checkpoints.is_due(number)
    if sentence := run.checkpoints.failure():
        run.logger.info(sentence)
    due |= run.checkpoints.is_retry_due()
    logs = due or number % run.experiment.train.log_every == 0
    # A skipped step has nothing to save, and its save would drive an older one out.
    save_pending = logs and not run.logger.check_steps() and due and not last
    saved = current.with_frozen(None)  # what adapters change stays where it was trained
    with run.goodput.spend("save"):
        if due and not save_pending:
            run.checkpoints.save(number, saved)
        if last:
            run.checkpoints.finish(number, saved)
    if logs:
        run.logger.flush(number, current)
    if due:
        run.logger.upload()
    return save_pending
