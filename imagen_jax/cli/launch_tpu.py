"""`imagen launch tpu`: a new run on Cloud TPU VMs."""

import dataclasses
import hashlib
import re
import tempfile
import time
from pathlib import Path
from typing import Annotated

import tyro

import imagen_jax
from imagen_jax import config as settings
from imagen_jax.cli import launch_commands, launch_inputs, launch_summary, parsing
from imagen_jax.cli.launch_commands import Command
from imagen_jax.cloud import (
    gcloud,
    observe,
    run_record,
    source_archive,
    untrusted,
    validate,
    watcher,
)
from imagen_jax.cloud.gcloud import Gcloud
from imagen_jax.cloud.run_record import LaunchSpec, Limits, RunRecord
from imagen_jax.cloud.source_archive import SourceArchive
from imagen_jax.cloud.tpu_slice import Slice

USAGE = """Create a slice, ship the committed code, run the same command on every worker, and keep
it up until it ends. Options of `imagen train` come after `--`.
"""
STARTUP = "startup.sh"
OF_TRAIN = ("--pairs", "--data-dir", "--init-from", "--only")  # and those of the config


@dataclasses.dataclass(frozen=True)
class LaunchOptions:
    """A new run."""

    workdir: str
    """Folder in a bucket for everything of the run: gs://BUCKET/NAME."""
    wanted: Annotated[Slice, tyro.conf.arg(name="")]
    command: str | None = None
    """Command to run on every worker instead of a config, such as "imagen encode ...". {worker} and
    {workers} in it become the worker's number and the number of workers. No shell reads it."""
    before: tuple[str, ...] = ()
    """Commands to run before it on every worker, in this order: "imagen data build shapes/full", or
    your own set-up, such as "gcsfuse my-bucket /mnt/bucket"."""
    before_once: tuple[str, ...] = ()
    """Commands to run after those of --before, on worker 0 alone while the others wait: "imagen
    encode ... --out gs://BUCKET/PAIRS"."""
    run_id: str | None = None
    """Name of the run and its resources; default: made from the workdir, always the same."""
    image: str | None = None
    """Container image that has imagen_jax, instead of the committed code."""
    package: tuple[str, ...] = ()
    """Packages of Ubuntu to install before, such as fonts-noto-color-emoji."""
    ignore_changes: bool = False
    """Ship the last commit although files are not as committed."""
    max_restarts: settings.Whole = 20
    """Slices that may be created after the first one."""
    deadline: str = "7d"
    """Time after which everything is deleted, whatever its state."""
    silence: str = "10m"
    """Time without a sign of life after which a worker counts as gone."""
    setup: str = "30m"
    """Time that a granted slice may take until every worker has reported."""
    linger: str = "30m"
    """Time after a command's end, or the deadline, until the machines delete their slice by
    themselves, if nobody did; their service account then needs roles/tpu.admin."""
    every: settings.Positive = 30.0
    """Seconds between two observations."""
    detach: bool = False
    """Create without watching: start `imagen launch watch` elsewhere."""
    price: settings.Positive | None = None
    """Dollars an hour of one chip, for the summary of --dry-run; default: a table's."""
    dry_run: bool = False
    """Print a summary with the costs, then every command and file, last of all the command to give
    next, and do nothing."""

    def __post_init__(self) -> None:
        settings.check_options(self)
        validate.check_names("workdir", self.workdir)
        for package in self.package:
            validate.check_names("package", package)
        if self.image is not None:
            validate.check_names("image", self.image)
        validate.check_names("run id", self.name)

    @property
    def name(self) -> str:
        """The run's id."""
        if self.run_id is not None:
            return self.run_id
        last = re.sub("[^a-z0-9]+", "-", self.workdir.rpartition("/")[2].lower()).strip("-")
        digest = hashlib.sha256(self.workdir.encode()).hexdigest()[:6]
        return f"run-{last[:24]}".rstrip("-") + f"-{digest}"


def run(own: list[str], rest: list[str]) -> int:
    """Create and, unless detached, watch; `rest` are options of `imagen train`. The exit code."""
    words = [*own, *(["--", *rest] if rest else [])]
    _refuse_misplaced(own)
    config = own.pop(0) if own and not own[0].startswith("-") else None
    options = parsing.parse(
        LaunchOptions, own, prog="imagen launch tpu [CONFIG]", description=USAGE
    )
    main, before = _main(config, options, rest), _before(options)
    cloud = Gcloud(dry=options.dry_run)
    launch = launch_inputs.Launch(main, before, options.wanted.hosts, cloud)
    found = launch_inputs.check_inputs(launch)
    earlier = None if options.dry_run else _earlier(cloud, options)
    code = None
    if options.image is None:
        code = source_archive.archive_head(Path.cwd(), ignore_changes=options.ignore_changes)
    new = _run(options, (*before, main), code, earlier)
    if options.dry_run:
        print(launch_summary.summarize(new, price=options.price, now=time.time()))
    for line in found:
        print(f"# {'data':<9}{line}" if options.dry_run else line)
    if code is not None:
        _ship(cloud, code, f"{new.job.folder}/{code.name}")
    if options.dry_run:
        show(cloud, new)
        print(launch_summary.describe_next(words))
        return 0
    watcher.write_record(cloud, new)
    watching = watcher.Watcher(cloud, new, startup(), every=options.every)
    return watching.begin() if options.detach else watching.watch()


def _refuse_misplaced(own: list[str]) -> None:
    """Refuse options of `imagen train` among the launcher's own. Errors: ValueError."""
    for name in (word.partition("=")[0].replace("_", "-") for word in own):
        if name in OF_TRAIN or re.fullmatch(r"--[a-z-]+\..*", name):
            raise ValueError(
                f"{name} is an option of `imagen train`: give it at the end, after `--`, as in "
                f"{launch_inputs.EXAMPLE}"
            )


def _before(options: LaunchOptions) -> tuple[Command, ...]:
    """The commands before the one that the run is for, in order. Errors: ValueError."""
    given = [("--before", c) for c in options.before]
    given += [(launch_commands.ONCE, c) for c in options.before_once]
    parsed = (launch_commands.parse_command(option, command) for option, command in given)
    return tuple(launch_commands.encode_alone(command) for command in parsed)


def _run(
    options: LaunchOptions,
    commands: tuple[Command, ...],
    code: SourceArchive | None,
    earlier: RunRecord | None,
) -> RunRecord:
    job = LaunchSpec(
        run_id=options.name,
        workdir=options.workdir,
        commands=tuple(command.words for command in commands),
        code=code.name if code else None,
        image=options.image,
        packages=options.package,
        once=tuple(place for place, command in enumerate(commands) if command.once),
    )
    limits = Limits(
        until=time.time() + validate.parse_seconds(options.deadline),
        max_restarts=options.max_restarts,
        silence=validate.parse_seconds(options.silence),
        setup=validate.parse_seconds(options.setup),
        linger=validate.parse_seconds(options.linger),
    )
    before = 0
    if earlier is not None:
        before = earlier.next_number - 1
    return RunRecord(job=job, wanted=options.wanted, limits=limits, before=before)


def _ship(cloud: Gcloud, code: SourceArchive, address: str) -> None:
    if cloud.dry:
        top = '"$(git rev-parse --show-toplevel)"'
        print(f"git -C {top} archive --format=tar {code.commit} > {code.name}")
        cloud.run(gcloud.put(Path(code.name), address))
        return
    with tempfile.TemporaryDirectory(prefix="imagen_") as folder:
        file = Path(folder) / code.name
        file.write_bytes(code.archive)
        cloud.run(gcloud.put(file, address))


def show(cloud: Gcloud, run: RunRecord) -> int:
    """Print what would be created, and the commands of the watcher."""
    attempt = run.current or run_record.Attempt(number=run.next_number, made=time.time())
    watcher.write_record(cloud, run.with_attempt(attempt))
    cloud.run(watcher.create_command(run, attempt, startup(), now=time.time()))
    name = run.name(attempt)
    print("# Every 30 s, to see how it is:")
    cloud.run(gcloud.describe(run.wanted, name))
    for node in run.wanted.nodes(name):
        cloud.run(gcloud.node(run.wanted, node))
    cloud.run(gcloud.cat(run.address(attempt, observe.REPORTS), first=observe.LONGEST))
    print("# When it is preempted, and at the end:")
    cloud.run(gcloud.delete(run.wanted, name))
    print(f"# {startup()}\n{startup().read_text()}")
    return 0


def _earlier(cloud: Gcloud, options: LaunchOptions) -> RunRecord | None:
    """The record of an earlier launch, if it has ended. Errors: ValueError if it has not."""
    address = f"{options.workdir}/{run_record.FOLDER}/{run_record.FILE}"
    try:
        text = cloud.run(gcloud.cat(address, first=untrusted.MAX_TEXT + 1))
    except gcloud.MissingResourceError:
        return None
    found = run_record.from_json(text, where=address)
    if found.finished is None:
        raise ValueError(
            f"{options.workdir} is launched already: `imagen launch watch {options.workdir}` goes "
            "on, `imagen launch stop` ends it"
        )
    return found


def _main(config: str | None, options: LaunchOptions, rest: list[str]) -> Command:
    """The command that the run is for. Errors: ValueError; what `imagen train` would refuse."""
    if (config is None) == (options.command is None):
        raise ValueError("give a config, or --command: one of the two")
    if config is None:
        if rest:
            raise ValueError(f"-- {' '.join(rest)}: with --command, write the options into it")
        return launch_commands.parse_command("--command", options.command or "")
    if any(word.partition("=")[0] == "--max-restarts" for word in rest):
        raise ValueError("--max-restarts after --: give it to `imagen launch tpu` itself")
    words = [config, "--workdir", options.workdir, *rest]
    main = Command("CONFIG", ("imagen", "train", *words))
    launch_inputs.resolve_stages(main)
    return main


def startup() -> Path:
    """Find the script that machines run at boot: next to the library, or inside it."""
    cloned = Path(imagen_jax.__file__).parent.parent / "launch" / STARTUP
    installed = Path(imagen_jax.__file__).parent / "launch" / STARTUP
    return cloned if cloned.is_file() else installed
