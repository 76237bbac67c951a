"""A run of the training loop: restored or initialised, with its batches, log and checkpoints."""

import dataclasses
import errno
import gc
from collections.abc import Sequence

import grain
import jax

from imagen_jax import config, lora, rng
from imagen_jax.data import pipeline
from imagen_jax.data.store.store import Store
from imagen_jax.io import log_files, nonfinite_arrays, run_dir
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import compilation_cache
from imagen_jax.train import distillation, optim, resolve, resume_checks, sharded_step, state, step
from imagen_jax.train.checkpointing import CheckpointWriter
from imagen_jax.train.goodput import GoodputTracker
from imagen_jax.train.init_from import InitFrom
from imagen_jax.train.logger import RunLogger
from imagen_jax.train.state import TrainState
from imagen_jax.train.train_metrics import Throughput
from imagen_jax.types import Params, RandomKey

# Of the text encoder's options: the digests tell encoders apart, wherever they are.
READ_BY_TEACHER = ("identity", "vocabulary", "clean", "clean_caption", "lower_case", "padding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What every step of a run reads; its state alone changes."""

    program: sharded_step.ShardedStep
    train_step: step.Step
    share: pipeline.ProcessRows  # of every batch, this process's
    root: RandomKey
    start: int  # steps that were made before
    batches: grain.DatasetIterator[pipeline.LoadedBatch]
    goodput: GoodputTracker
    checkpoints: CheckpointWriter
    logger: RunLogger

    @property
    def experiment(self) -> config.Experiment:
        """The config as it runs."""
        return self.program.experiment

    def close(self) -> None:
        """End worker processes, the log and the saves."""
        self.batches.close()
        if self.experiment.data.workers:
            gc.collect()  # jax, too, frees what they shared, before it is asked for
        self.logger.close()
        self.checkpoints.close()


def begin(
    experiment: config.Experiment, workdir: Workdir, *, store: Store, source: InitFrom | None
) -> tuple[TrainingRun, TrainState]:
    """The run in `workdir`, begun or resumed, and its state: shapes, then shardings, then arrays.

    Errors: ValueError and OSError, as `loop.train`.
    """
    _require_base(experiment, source)
    compilation_cache.use_cache()
    with_text = resolve.with_text(experiment, store)
    _require_same_text(with_text, source)
    resume_checks.refuse_other_run(workdir, with_text)
    experiment = resolve.resolve(experiment, store=store)
    if jax.process_index() == 0:
        print(f"{experiment.stage.name}: compiling ...", flush=True)
    goodput = GoodputTracker()
    program, frozen, origin = _with_frozen(sharded_step.build(experiment), source)
    experiment = program.experiment
    changed = resume_checks.changed_options(workdir, experiment)
    checkpoints = CheckpointWriter(workdir, experiment)
    start, current = checkpoints.restore(program.target().with_frozen(None))
    if current is not None:
        origin = _describe_resumption(start, changed, None if frozen is not None else source)
        current = current.with_frozen(frozen)
    elif frozen is not None:
        current = _first_state_beside(program, frozen)
    else:
        current, origin = _first_state(program, store=store, source=source)
    if jax.process_index() == 0:
        _write_config(workdir, experiment)
    checkpoints.has_config = True
    run = _assemble(
        program, workdir, store=store, start=start, goodput=goodput, checkpoints=checkpoints
    )
    warmup = optim.describe_long_warmup(experiment.optim, steps=experiment.train.steps)
    noise = distillation.describe_noise_prediction(experiment.stage)
    for sentence in (origin, *(() if start else (warmup, noise))):
        if sentence:
            run.logger.info(sentence)
    return run, current


def _require_base(experiment: config.Experiment, source: InitFrom | None) -> None:
    """Refuse adapters, and students, of nothing. Errors: ValueError."""
    distilled = experiment.stage.distillation
    if experiment.lora.rank and source is None:
        raise ValueError(
            f"lora.rank={experiment.lora.rank} trains adapters of a trained network: give it by "
            "--init-from"
        )
    if distilled is not None and source is None:
        raise ValueError(
            f"stage.distillation.method={distilled.method!r} trains a student of a trained "
            "network: give it by --init-from"
        )


def _require_same_text(experiment: config.Experiment, source: InitFrom | None) -> None:
    """Refuse a teacher that reads captions as its student does not. Errors: ValueError."""
    if experiment.stage.distillation is None or source is None:
        return
    ours, theirs = experiment.text, run_dir.read_config(source.folder).text
    for name in READ_BY_TEACHER:
        here, there = getattr(ours, name), getattr(theirs, name)
        if there not in (here, "") and here != "":  # a digest that is not known
            raise ValueError(
                f"{source.folder}: the teacher was trained with text.{name}={there!r}, and the "
                f"pairs of its student have {here!r}: encode them as it had them"
            )


def _with_frozen(
    program: sharded_step.ShardedStep, source: InitFrom | None
) -> tuple[sharded_step.ShardedStep, Params | None, str]:
    """The weights of a base or a teacher, whenever a run begins, and where they are from.

    The program knows their digest then. Without them it is as it was, and they are None.
    Errors: ValueError for weights of `source` that do not fit, or are not finite.
    """
    experiment = program.experiment
    if program.shapes.frozen is None or source is None:
        return program, None, ""
    frozen, origin = source.read(program.target().frozen)
    nonfinite_arrays.require_finite(frozen, f"{source.folder}: the weights")
    experiment = _with_identity(experiment, lora.identity(frozen))
    return dataclasses.replace(program, experiment=experiment), frozen, origin


def _with_identity(experiment: config.Experiment, identity: str) -> config.Experiment:
    """Note in the config whose weights the run begins with, and keeps."""
    if experiment.lora.rank:
        adapters = dataclasses.replace(experiment.lora, identity=identity)
        return dataclasses.replace(experiment, lora=adapters)
    teacher = dataclasses.replace(experiment.teacher, identity=identity)
    return dataclasses.replace(experiment, teacher=teacher)


def _first_state(
    program: sharded_step.ShardedStep, *, store: Store, source: InitFrom | None
) -> tuple[TrainState, str]:
    """The state of a run of all weights that begins, and where they are from; "" for random ones.

    Errors: ValueError for weights of `source` that are not finite.
    """
    current, origin = program.init(rng.root(program.experiment.train.seed)), ""
    if source is not None:
        current, origin = source.initialize(current)
        nonfinite_arrays.require_finite(current, f"{source.folder}: the weights")
    return state.with_empty_prompt(current, store.empty().array()), origin


def _first_state_beside(program: sharded_step.ShardedStep, frozen: Params) -> TrainState:
    """The state of a run that begins beside frozen weights: adapters', or a teacher's student."""
    current = program.init(rng.root(program.experiment.train.seed)).with_frozen(frozen)
    if program.experiment.stage.distillation is None:
        return current
    return state.with_teachers_weights(current)


def _describe_resumption(start: int, changed: Sequence[str], source: InitFrom | None) -> str:
    """Describe where a run is resumed; `source` is of weights that it does not read again."""
    origin = f"resumed from step {start}"
    if changed:
        origin += f", with {', '.join(changed)}"
    if source is not None:
        origin += f"; the weights of {source.folder} were for its beginning"
    return origin


def _assemble(
    program: sharded_step.ShardedStep,
    workdir: Workdir,
    *,
    store: Store,
    start: int,
    goodput: GoodputTracker,
    checkpoints: CheckpointWriter,
) -> TrainingRun:
    """A run whose next step is `start` + 1, with that step, its batches and its log."""
    experiment = program.experiment
    train_step, share = program.step(), program.share
    batches = pipeline.example_stream(
        store,
        stage=experiment.stage,
        data=experiment.data,
        share=share,
        seed=experiment.train.seed,
        start_step=start,
    )
    throughput = Throughput(
        sharded_step.flops_per_image(experiment), program.devices.devices.flatten().tolist()
    )
    return TrainingRun(
        program=program,
        train_step=train_step,
        share=share,
        root=rng.root(experiment.train.seed),
        start=start,
        batches=batches,
        goodput=goodput,
        checkpoints=checkpoints,
        logger=RunLogger(
            workdir, experiment, store, speed=throughput, start=start, goodput=goodput
        ),
    )


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
