"""`imagen plan CONFIG --topology v5e:16x16`: does it fit, and how fast will it go?"""

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from imagen_jax import config
from imagen_jax.cli import config_overrides, distill
from imagen_jax.cli.experiments import is_diffusers, load_experiments
from imagen_jax.io import json_reader, paths

USAGE = """Compile a config's real training step for a TPU slice that need not be here, and report
its memory, traffic and estimated speed. Nothing runs on a chip: times are the TPU compiler's
estimates. It needs `pip install 'imagen_jax[plan]'`, two cores and a few minutes for the largest
models. `imagen plan --table FILE...` shows plans that `--json` printed side by side.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a plan: what to compile, and for which devices."""

    topology: str
    """GENERATION:SHAPE in chips: v4:8x8x4, v5p:4x4x8, v5e:16x16, v6e:16x16, tpu7x:4x4x4."""
    slices: config.Parallel = 1
    """Number of these slices, data-parallel over the data-centre network."""
    batch: config.BatchSize | None = None
    """Global batch; of images with --sample, of captions with --encode. Default: the config's
    batch, or 8 rows of the network's batch on each device."""
    sample: bool = False
    """Plan the stage's whole sampling loop instead of training."""
    steps: Annotated[tuple[int, ...], config.Range(low=1, high=10**5)] = ()
    """Numbers of sampling steps with --sample, a plan for each of one compilation; the one number
    of a student's with --distill. Default: the config's."""
    distill: config.DistillationMethod | None = None
    """Plan a student that `imagen distill` makes by this method, in place of the stage: its
    distillation, or with --sample its sampling."""
    encode: bool = False
    """Plan the text encoder instead of training, on the chips of one process: each encodes for
    itself."""
    split: Literal["captions", "heads"] = "captions"
    """With --encode: what chips share that hold an encoder together. captions: each gathers the
    weights for captions of its own (`imagen encode`); heads: all compute every caption (few
    prompts)."""
    fit: bool = False
    """Find the largest batch a chip can hold and the cheapest rematerialisation that lets it."""
    price: config.Positive | None = None
    """Dollars an hour of a chip, for the cost of the config's schedule."""
    full_effort: bool = False
    """Compile as for a run: closer, but it takes 15 times as long and much memory."""
    json: bool = False
    """Print JSON, and nothing else, to standard output."""

    def __post_init__(self) -> None:
        config.check_options(self)
        chosen = [n for n in ("sample", "encode", "fit") if getattr(self, n)]
        config.require(
            len(chosen) <= 1, f"--{' and --'.join(chosen)} exclude each other: give one of them"
        )
        config.require(
            self.sample or self.distill is not None or not self.steps,
            "--steps needs --sample or --distill",
        )
        config.require(
            not (self.distill and (self.encode or self.fit)),
            "--distill is planned with --sample, or alone: leave out --encode and --fit",
        )
        config.require(
            not self.distill or len(self.steps) < 2,
            f"--steps {' '.join(map(str, self.steps))}: a student has one number: plan each apart",
        )


def run(argv: list[str]) -> None:
    """Parse, compile, report."""
    if argv[:1] == ["--table"]:
        return _table(argv[1:])
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            tyro.cli(Options, args=["--help"], prog="imagen plan CONFIG", description=USAGE)
        raise ValueError("give a config first: imagen plan CONFIG --topology v5e:16x16")
    from imagen_jax.plan import topology

    if is_diffusers(argv[0]):  # whose reader imports jax
        topology.use_compiler()
    parsed = [
        config_overrides.parse(
            Options, e, argv[1:], prog=f"imagen plan {argv[0]}", description=USAGE
        )
        for e in load_experiments(argv[0])
    ]
    options = parsed[0][0]
    topology.parse_topology(options.topology)  # refuse a misspelled one before anything slow
    topology.use_compiler()
    if problem := topology.describe_mismatch():
        print(f"warning: {problem}", file=sys.stderr)
    slice_ = topology.describe_topology(options.topology, slices=options.slices)
    experiments = [_student(e, options) for _, e in parsed]
    if options.encode:
        experiments = experiments[:1]  # a cascade has one encoder
    documents = [plan for experiment in experiments for plan in _plan(experiment, slice_, options)]
    if options.json:
        from imagen_jax.plan import report

        today = datetime.date.today().isoformat()
        print(report.plans_to_json(documents, versions=_versions(), date=today))


def _student(experiment: config.Experiment, options: Options) -> config.Experiment:
    """The experiment, or that of its student where one is asked for."""
    if options.distill is None:
        return experiment
    return distill.planned_student(experiment, options.distill, *(options.steps or (0,)))


def _table(files: list[str]) -> None:
    from imagen_jax.plan import report

    if not files:
        raise ValueError("--table needs files that `imagen plan ... --json` printed")
    plans = [plan for file in files for plan in read_plans(paths.local_path(file))]
    print(report.plan_table(plans))


def read_plans(file: Path) -> list[dict[str, Any]]:
    """The plans of a file that `--json` filled. Errors: ValueError when it holds none."""
    from imagen_jax.plan import report

    remedy = f"make it by imagen plan CONFIG --topology ... --json > {file}"
    try:
        return report.find_plans(json_reader.read_object(file, remedy=remedy))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} holds no plan ({error}); {remedy}") from error


def _plan(experiment: config.Experiment, topology: Any, options: Options) -> list[dict[str, Any]]:
    from imagen_jax.plan import report

    what = "the text encoder" if options.encode else experiment.stage.name
    print(
        f"compiling {what} for {topology.name}: seconds for small networks, minutes for large ones",
        file=sys.stderr,
        flush=True,
    )
    schedule, plans = None, []
    if options.encode:
        plans = [_encode(experiment, topology, options)]
    elif options.sample:
        plans = _sample(experiment, topology, options)
    else:
        experiment, planned = _train(experiment, topology, options)
        schedule, plans = experiment.train.steps, [planned]
    documents = [
        report.plan_document(planned, topology, calls=schedule, price=options.price)
        for planned in plans
    ]
    if not options.json:
        for figures in documents:
            print(f"{report.plan_text(figures)}\n", flush=True)
    return documents


def _sample(experiment: config.Experiment, topology: Any, options: Options) -> Any:
    from imagen_jax.plan import compile

    guided = experiment.stage.is_guided
    images = options.batch or len(topology.devices) * (4 if guided else 8)
    steps = () if options.distill else options.steps  # which the student's sampler has
    return compile.compile_sample(
        experiment, topology, images=images, steps=steps, effort=options.full_effort
    )


def _train(
    experiment: config.Experiment, topology: Any, options: Options
) -> tuple[config.Experiment, Any]:
    from imagen_jax.plan import compile

    if options.batch is not None:
        train = dataclasses.replace(experiment.train, batch_size=options.batch)
        experiment = dataclasses.replace(experiment, train=train)
    if options.fit:
        return _fit(experiment, topology)
    return experiment, compile.compile_train(experiment, topology, effort=options.full_effort)


def _fit(experiment: config.Experiment, topology: Any) -> tuple[config.Experiment, Any]:
    from imagen_jax.plan import max_batch

    best = None
    for tried in max_batch.search_max_batch(experiment, topology):
        gib = f"{tried.planned.estimate.memory.total / 2**30:.2f} GiB" if tried.planned else "-"
        verdict = "fits" if tried.fits else "does not fit"
        print(
            f"{tried.local_batch} a chip, remat {tried.remat}: {gib}, {verdict}",
            file=sys.stderr,
            flush=True,
        )
        best = tried if tried.fits else best
    if best is None:
        raise ValueError(
            f"{experiment.stage.name} does not fit {topology.name} with any rematerialisation: "
            "take more chips, a larger mesh.fsdp, or another optimiser"
        )
    return best.experiment, best.planned


def _encode(experiment: config.Experiment, topology: Any, options: Options) -> Any:
    from imagen_jax.plan import compile
    from imagen_jax.text import encoder, encoder_folders

    return compile.compile_encode(
        encoder_folders.read_t5_config(experiment.text.encoder),
        topology,
        captions=options.batch or encoder.BATCH_TOKENS // compile.tokens_of(experiment.text),
        text=experiment.text,
        split=options.split,
        effort=options.full_effort,
    )


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("imagen_jax", "jax", "jaxlib", "libtpu")}
