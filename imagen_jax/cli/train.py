"""`imagen train CONFIG --workdir DIR`: train a stage, or a cascade stage after stage."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from imagen_jax import config
from imagen_jax.cli import config_overrides, console, devices, init_from
from imagen_jax.cli.cache_options import CacheOptions
from imagen_jax.cli.experiments import load_experiments
from imagen_jax.io import workdir
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import backend, distributed
from imagen_jax.runtime.supervisor import STEP_FILE, StepRecorder, Supervisor

if TYPE_CHECKING:
    from imagen_jax.data.store.store import Store
    from imagen_jax.train.loop import Hook

PATIENCE = 5.0  # seconds from SIGTERM until a process ends that builds a network meanwhile
UNBEGUN = (
    "was asked to stop before its first step, and nothing is lost: give the same command again"
)
USAGE = """Train one stage (a config file) or every stage in turn (a folder of configs).

`imagen train CONFIG --help` lists every field of that config; each can be overridden, such as
--optim.learning-rate 3e-5. Give the same command again to resume a run that was interrupted.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run, whatever it trains."""

    workdir: str
    """Folder for checkpoints, logs and the resolved config, here or in a bucket (gs://); a cascade
    makes one folder a stage."""
    data_dir: Path = Path("data")
    """Folder that `imagen encode` wrote to."""
    pairs: str | None = None
    """Folder that `imagen encode --out` wrote, here or in a bucket (gs://), if not the config's own
    below --data-dir."""
    cache: Annotated[CacheOptions, tyro.conf.arg(name="")] = CacheOptions()
    """Copies of pairs in a bucket."""
    only: str | None = None
    """Stage of a cascade to train alone."""
    profile_steps: str | None = None
    """Steps to trace with jax's profiler into WORKDIR/profile: FIRST:STOP, such as 100:105."""
    max_restarts: config.Whole = 0
    """Most restarts from the last checkpoint after crashes; refused input and two crashes in a row
    after the same step end the run. With several processes, give it to each."""
    processes: Annotated[config.Processes, tyro.conf.arg(name="")] = config.Processes()
    """Several processes, such as the hosts of a TPU slice."""

    def __post_init__(self) -> None:
        config.check_options(self)
        self.cache.settings()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Options of a training run."""

    init_from: str | None = None
    """Weights to start a new run with: the folder of another run, of an exported or embedded stage,
    of a cascade that has this stage, or of DeepFloyd IF. A run that is resumed ignores it."""
    init_take: Literal["ema", "weights"] = "ema"
    """Weights to take with --init-from: the averaged ones for both, or weights and average as
    they were."""
    init_partial: bool = False
    """Accept a partial match with --init-from: take the tensors that fit, list the others and
    initialise those from scratch."""


Given = TypeVar("Given", bound=RunOptions)


def parse(argv: list[str]) -> tuple[Options, list[config.Experiment], bool]:
    """Options, the stages to train, and whether they are of a cascade.

    Errors: ValueError, FileNotFoundError for what can't be trained; SystemExit for a wrong option.
    """
    return parse_stages(argv, Options, command="train", description=USAGE)


def parse_stages(
    argv: list[str], kind: type[Given], *, command: str, description: str
) -> tuple[Given, list[config.Experiment], bool]:
    """Options of a command that trains, its stages, and whether they are of a cascade.

    Errors: as `parse`.
    """
    prog = f"imagen {command}"
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            tyro.cli(kind, args=["--help"], prog=f"{prog} CONFIG", description=description)
        raise ValueError(f"give a config first: {prog} CONFIG --workdir DIR")
    experiments = load_experiments(argv[0])
    parsed = [
        config_overrides.parse(kind, e, argv[1:], prog=f"{prog} {argv[0]}", description=description)
        for e in experiments
    ]
    options = parsed[0][0]
    chosen = [e for _, e in parsed if options.only in (None, e.stage.name)]
    if not chosen:
        names = [e.stage.name for e in experiments]
        raise ValueError(f"--only {options.only}: no such stage in {argv[0]}; it has {names}")
    return options, chosen, len(experiments) > 1


def run(argv: list[str]) -> None:
    """Parse, then train each stage."""
    options, chosen, cascade = parse(argv)
    run_stages("train", argv, options, chosen, cascade=cascade)


def run_stages(
    command: str,
    argv: list[str],
    options: Options,
    chosen: Sequence[config.Experiment],
    *,
    cascade: bool,
) -> None:
    """Train each stage, as the arguments of `command` ask for; in a child process, where it must.

    Errors: ValueError, OSError.
    """
    supervised = options.max_restarts > 0 or distributed.is_multiprocess(options.processes)
    if supervised and STEP_FILE not in os.environ:
        _supervise(command, argv, options)
        return
    distributed.initialize(options.processes)
    backend.dispatch_inline()
    with console.tolerant():
        devices.report_devices()
        _train_all(chosen, cascade, options, argv[0])


def _train_all(
    chosen: Sequence[config.Experiment], cascade: bool, options: Options, name: str
) -> None:
    for experiment in chosen:
        folder = workdir.as_path(options.workdir)
        inside = folder / experiment.stage.name if cascade else folder
        train_stage(experiment, inside, options, name)


def _supervise(command: str, argv: Sequence[str], options: Options) -> None:
    """Train in a supervised child process.

    Runs of several processes need it, too: a dead peer aborts the process before Python can tell.
    """
    from imagen_jax.runtime.child_process import imagen_command

    supervisor = Supervisor(
        imagen_command(command, *argv),
        workdir.as_path(options.workdir),
        name=f"imagen {command}",
        max_restarts=options.max_restarts,
    )
    if code := supervisor.run():
        sys.exit(code)


def train_stage(
    experiment: config.Experiment, folder: Workdir, options: Options, name: str
) -> None:
    """Train one stage in `folder`. Errors: as `run`.

    `name` is of its config, a program that is run; "" for one that a cascade holds, anybody's.
    """
    import jax

    from imagen_jax.cli import absolute_paths
    from imagen_jax.parallel import compilation_cache
    from imagen_jax.runtime import late_signals, preemption
    from imagen_jax.train import loop, run_lease

    compilation_cache.use_cache()
    experiment = absolute_paths.resolve_text(experiment)
    store = _open_store(experiment, options, name)
    # With --pairs they say what the run is trained on, whatever the config names.
    data = dataclasses.replace(experiment.data, dataset=store.dataset, split=store.split)
    experiment = dataclasses.replace(experiment, data=data)
    source = init_from.find_source(options, experiment.stage)
    experiment = init_from.with_base(experiment, options)
    hooks = _hooks(experiment, store, options)
    unbegun = f"{experiment.stage.name} {UNBEGUN}"
    alone = jax.process_count() == 1
    with (
        run_lease.hold_run(folder) as check,
        preemption.watch_for_preemption(distributed.metadata_server(), at_once=unbegun) as watch,
        late_signals.end_late(unbegun, patience=PATIENCE if alone else None) as late,
    ):

        def stop(step: int) -> bool:
            watch.at_once = ""
            late.ignore_sigterm()
            check()
            return watch.stops_after(step)

        state = loop.train(experiment, folder, store=store, source=source, hooks=hooks, stop=stop)
    if jax.process_index() == 0:
        _report_end(experiment, folder, int(state.step))


def _hooks(experiment: config.Experiment, store: "Store", options: Options) -> list["Hook"]:
    """What is called after every step: sampled images, a trace, the step for the supervisor."""
    from imagen_jax.cli import preview_hook
    from imagen_jax.train import profiler

    hooks = [preview_hook.hook(experiment, store)] if experiment.train.sample_every else []
    if options.profile_steps is not None:
        steps = profiler.parse_window(options.profile_steps, last=experiment.train.steps)
        hooks.append(profiler.ProfileWindow(steps))
    if file := os.environ.get(STEP_FILE):
        hooks.append(StepRecorder(Path(file), name=experiment.stage.name))
    return hooks


def _report_end(experiment: config.Experiment, folder: Workdir, reached_step: int) -> None:
    asked = experiment.train.steps
    print(
        f"{experiment.stage.name}: trained to step {asked} in {folder}"
        if reached_step == asked
        else f"{experiment.stage.name}: nothing to train: {folder} is at step {reached_step} "
        f"already, past train.steps={asked}"
    )


def _open_store(experiment: config.Experiment, options: Options, name: str) -> "Store":
    """Return the pairs that a stage of the config `name` trains on.

    Refuses a dataset that was encoded with another tokenizer than the config's, if that is here:
    the encoder itself is not needed. Errors: FileNotFoundError, ValueError, with the command that
    makes the right pairs.
    """
    from imagen_jax.cli import encode_command
    from imagen_jax.data.prepare import jobs
    from imagen_jax.data.store import fit
    from imagen_jax.text import encoder_folders

    pairs = None if options.pairs is None else workdir.as_path(options.pairs)
    command = f"imagen finetune ... --out {options.workdir}"
    if name:
        command = encode_command.describe_command(
            name, experiment, data_dir=options.data_dir, pairs=pairs
        )
    store = jobs.find_store(experiment, options.data_dir, pairs, command=command)
    store = dataclasses.replace(store, cache=options.cache.settings())
    text = experiment.text
    vocabulary = text.vocabulary or encoder_folders.find_vocabulary(text.encoder, text.tokenizer)
    asked = dataclasses.replace(text, vocabulary=vocabulary)
    fit.check_store(store, experiment=dataclasses.replace(experiment, text=asked), command=command)
    if reading := store.source().describe():
        print(reading, flush=True)
    return store
