"""The training loop of one stage: restore or initialise, then step, log, save."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from imagen_jax import checkpoint, config, mesh, rng
from imagen_jax.data import damage, pipeline
from imagen_jax.data.store import Store
from imagen_jax.train import metrics, program, state
from imagen_jax.types import Params

UNTOLD = ""  # a digest of the text encoder in the config of a run from before they were kept

Hook = Callable[[int, Params, metrics.Progress], None]  # (step, ema, progress), after each step


class Diverged(FloatingPointError):
    """The loss is no longer a number."""


def train(
    experiment: config.Experiment,
    workdir: Path,
    *,
    store: Store,
    hooks: Sequence[Hook] = (),
) -> state.TrainState:
    """Train to `experiment.train.steps`, resuming from the newest checkpoint in `workdir`.

    Errors: ValueError when the store or the checkpoint doesn't fit the config, or when more of the
    store than `experiment.data.max_damaged` is damaged; Diverged when the loss becomes NaN, naming
    the step and the last good checkpoint.
    """
    options = experiment.train
    pipeline.check(store, experiment=experiment)
    experiment = pipeline.with_encoder(experiment, store)
    _refuse_other_run(workdir, experiment)
    leads = jax.process_index() == 0
    if leads:
        checkpoint.write_config(workdir, experiment)

    # ---- shapes -> shardings -> arrays
    work = program.build(experiment)
    root = rng.root(options.seed)
    saves = checkpoint.Checkpoints(workdir, keep=options.keep)
    start = saves.latest() or 0
    if start:
        current = saves.restore(work.target())
        if leads:
            print(f"{experiment.stage.name}: resumed from step {start}", flush=True)
    else:
        current = state.with_empty_prompt(work.init(root), store.empty().array())
    train_step, share = work.step(), work.share
    batches = pipeline.stream(
        store,
        stage=experiment.stage,
        data=experiment.data,
        share=share,
        seed=options.seed,
        start_step=start,
    )
    tally = damage.Tally(
        store, workdir, most=experiment.data.max_damaged, process=jax.process_index()
    )
    progress = metrics.Progress(
        workdir, name=experiment.stage.name, steps=options.steps, start=start
    )
    try:
        for number in range(start + 1, options.steps + 1):
            loaded = next(batches)
            tally.add(number, loaded)
            batch = pipeline.to_device(loaded.batch, work.batch_shardings, share=share)
            with mesh.use(work.devices):
                current, scalars = train_step(current, batch, root)
            progress.add(scalars)
            last = number == options.steps
            if last or number % options.log_every == 0 or number % options.save_every == 0:
                values = progress.flush(number, images=options.batch_size, damaged=tally.damaged)
                _refuse_nan(values["loss"], number, saves)
            if last or number % options.save_every == 0:
                saves.save(number, current, experiment)
            for hook in hooks:
                hook(number, current.ema, progress)
        saves.wait()
    finally:
        progress.close()
        saves.close()
    return current


def _refuse_nan(loss: float, number: int, saves: checkpoint.Checkpoints) -> None:
    if math.isfinite(loss):
        return
    good = saves.latest()
    kept = f"the last good checkpoint is {saves.folder / str(good)}" if good else "none was saved"
    raise Diverged(
        f"the loss became {loss} at or before step {number}; {kept}; "
        "lower optim.learning_rate or set optim.clip_norm, then run the same command again"
    )


def _refuse_other_run(workdir: Path, experiment: config.Experiment) -> None:
    """A folder that holds another model's run is not continued with this one."""
    if not (workdir / checkpoint.CONFIG).is_file():
        return
    before = checkpoint.read_config(workdir)
    changed = [
        f"{part}.{f.name}: {getattr(old, f.name)!r} there, {getattr(new, f.name)!r} here"
        for part in ("stage", "text")
        for old, new in [(getattr(before, part), getattr(experiment, part))]
        for f in dataclasses.fields(new)
        if f.name != "sampler" and getattr(old, f.name) not in (getattr(new, f.name), UNTOLD)
    ]
    if changed:
        raise ValueError(
            f"{workdir} holds a run with another config: {'; '.join(changed)}; "
            "give another --workdir or restore the config"
        )
