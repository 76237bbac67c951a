"""`imagen launch tpu CONFIG ...`: training on Cloud TPU VMs that come and go."""

import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

import tyro

from imagen_jax import config
from imagen_jax.cli import launch_tpu, launch_worker, parsing
from imagen_jax.cloud import gcloud, status, untrusted, validate, watcher
from imagen_jax.cloud.gcloud import Gcloud
from imagen_jax.cloud.run_record import RunRecord
from imagen_jax.cloud.tpu_slice import Slice

USAGE = """usage: imagen launch tpu CONFIG --accelerator v5litepod-64 --zone us-west4-a
                         --workdir gs://BUCKET/RUN [-- OPTIONS OF imagen train]
       imagen launch tpu --command "imagen encode ..." --accelerator ... --zone ... --workdir ...
       imagen launch watch WORKDIR     keep it up: delete, create again, until it ends
       imagen launch status WORKDIR    the slice, its workers, step, images/s, last checkpoint
       imagen launch logs WORKDIR      of a worker, or of all
       imagen launch ssh WORKDIR       a shell on a worker, or a command on each
       imagen launch stop WORKDIR      delete everything that it created but the run itself
       imagen launch clean --zone Z    delete queued resources that failed and still hold quota
                                       (both show them and ask first; --yes: they do not ask)

Creates a queued resource of Cloud TPU through gcloud, ships the committed code to the bucket, and
runs the same command on every worker; no ssh connection has to last. `tpu` watches, too, unless
--detach. `imagen launch COMMAND --help` tells more; --dry-run prints every command and file.
"""


@dataclasses.dataclass(frozen=True)
class RunAddress:
    """The run."""

    workdir: tyro.conf.Positional[str]
    """Address of the run, the gs://... that was given to `imagen launch tpu`."""
    dry_run: bool = False
    """Print the commands and change nothing; commands that only read are run."""


@dataclasses.dataclass(frozen=True)
class WatchOptions(RunAddress):
    """The run, and how often to look."""

    every: config.Positive = 30.0
    """Seconds between two observations."""
    take_over: bool = False
    """Take over from another `imagen launch watch` of the run that is still alive."""


@dataclasses.dataclass(frozen=True)
class LogsOptions(RunAddress):
    """The log to show."""

    worker: config.Whole | None = None
    """Number of the worker; default: all, one after another."""
    attempt: config.Count | None = None
    """Number of the attempt; default: the last one."""
    follow: bool = False
    """Follow the log of one worker (0 by default) as it grows."""


@dataclasses.dataclass(frozen=True)
class ShellOptions(RunAddress):
    """The worker to log in to. A command after `--` is run instead of a shell."""

    worker: str = "0"
    """Number of the worker, or `all` with a command."""
    node: str = "0"
    """Number of the slice, or `all` with a command."""


@dataclasses.dataclass(frozen=True)
class StopOptions(RunAddress):
    """The run to stop."""

    yes: bool = False
    """Delete what is listed without being asked, as a script needs it."""


@dataclasses.dataclass(frozen=True)
class CleanOptions:
    """The left-overs to delete."""

    zone: str
    """Zone of Google Cloud, such as us-west4-a."""
    project: str | None = None
    """Project of Google Cloud; default: gcloud's own."""
    everyone: bool = False
    """Delete failed resources that `imagen launch` did not create, too."""
    yes: bool = False
    """Delete what is listed without being asked, as a script needs it."""
    dry_run: bool = False
    """Print the resources to delete, and delete nothing."""


def run(argv: list[str]) -> None:
    """Hand over to a subcommand."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        if not argv:
            raise ValueError(f"give one of {', '.join(COMMANDS)}")
        return
    if argv[0] not in COMMANDS:
        raise ValueError(f"no `imagen launch {argv[0]}`; there are {', '.join(COMMANDS)}")
    own, rest = argv[1:], []
    if "--" in own:
        cut = own.index("--")
        own, rest = own[:cut], own[cut + 1 :]
    if code := COMMANDS[argv[0]](own, rest):
        sys.exit(code)


def _watch(own: list[str], _: list[str]) -> int:
    options = parsing.parse(WatchOptions, own, prog="imagen launch watch", description=USAGE)
    found, cloud = _found(options)
    if options.dry_run:
        return launch_tpu.show(cloud, found)
    startup = launch_tpu.startup()
    watching = watcher.Watcher(
        cloud, found, startup, every=options.every, take_over=options.take_over
    )
    return watching.watch()


def _status(own: list[str], _: list[str]) -> int:
    options = parsing.parse(RunAddress, own, prog="imagen launch status", description=USAGE)
    found = _found(options)[0]
    print(status.status_text(Gcloud(), found))
    return 0


def _logs(own: list[str], _: list[str]) -> int:
    options = parsing.parse(LogsOptions, own, prog="imagen launch logs", description=USAGE)
    found = _found(options)[0]
    if not found.attempts:
        raise ValueError(f"{options.workdir}: nothing was created yet, so there are no logs")
    number = options.attempt or found.attempts[-1].number
    worker = 0 if options.follow and options.worker is None else options.worker
    file = "worker-*.log" if worker is None else f"worker-{worker}.log"
    attempt = dataclasses.replace(found.attempts[-1], number=number)
    for part in status.follow_logs(Gcloud(), found.address(attempt, file), again=options.follow):
        print(untrusted.spell_controls(part), end="", flush=True)
    return 0


def _ssh(own: list[str], rest: list[str]) -> int:
    options = parsing.parse(ShellOptions, own, prog="imagen launch ssh", description=USAGE)
    found, cloud = _found(options)
    if found.current is None:
        raise ValueError(f"{options.workdir}: no slice is up; see `imagen launch status`")
    command = shlex.join(rest) if rest else None
    name = found.name(found.current)
    for option in (options.node, options.worker):
        if option != "all" and not (option.isascii() and option.isdigit()):
            raise ValueError(f"{option!r} is no number of a node or a worker: give one, or all")
    shell = gcloud.ssh(
        found.wanted, name, node=options.node, worker=options.worker, command=command
    )
    return cloud.attach(shell)


def _stop(own: list[str], _: list[str]) -> int:
    options = parsing.parse(StopOptions, own, prog="imagen launch stop", description=USAGE)
    found, cloud = _found(options)
    names = status.list_remaining(Gcloud(), found)
    _confirm(names, found.wanted, yes=options.yes or options.dry_run)
    watcher.write_record(
        cloud, watcher.mark_stopped(found)
    )  # first: a watcher elsewhere then makes no other
    for name in names:
        print(f"deleting {name}", file=sys.stderr)
        watcher.delete_resources(cloud, found.wanted, name)
    left = [] if options.dry_run else status.list_remaining(Gcloud(), found)
    if new := [name for name in left if name not in names]:
        raise ValueError(
            f"{', '.join(new)} was created meanwhile and may cost money: give this command again"
        )
    return 0


def _clean(own: list[str], _: list[str]) -> int:
    options = parsing.parse(CleanOptions, own, prog="imagen launch clean", description=USAGE)
    wanted = Slice(accelerator="v5litepod-8", zone=options.zone, project=options.project)
    found = status.list_leftovers(Gcloud(), wanted, everyone=options.everyone)
    listed = [f"{name}, {state}" for name, state in found]
    _confirm(listed, wanted, yes=options.yes or options.dry_run)
    for name, state in found:
        print(f"deleting {name}, {state}", file=sys.stderr)
        watcher.delete_resources(Gcloud(dry=options.dry_run), wanted, name)
    return 0


def _confirm(listed: Sequence[str], wanted: Slice, *, yes: bool) -> None:
    """Show what is to be deleted, and ask. Errors: ValueError where nobody agrees."""
    project = f" of project {wanted.project}" if wanted.project else ""
    for one in listed:
        print(f"to delete in {wanted.zone}{project}: {one}", file=sys.stderr)
    if yes or not listed:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ValueError(
            f"{len(listed)} to delete and nobody to ask, so nothing was deleted: give --yes"
        )
    print("Delete with all their nodes? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError("not confirmed, so nothing was deleted")


def _found(options: RunAddress) -> tuple[RunRecord, Gcloud]:
    """The record, and gcloud for what changes something."""
    validate.check_names("workdir", options.workdir)
    return watcher.read_record(Gcloud(), options.workdir), Gcloud(dry=options.dry_run)


COMMANDS: Mapping[str, Callable[[list[str], list[str]], int]] = {
    "tpu": launch_tpu.run,
    "watch": _watch,
    "status": _status,
    "logs": _logs,
    "ssh": _ssh,
    "stop": _stop,
    "clean": _clean,
    "worker": launch_worker.run,
}
