"""`imagen launch worker`: what the start-up script, a pod and a SkyPilot task call."""

import dataclasses
import os
from pathlib import Path

import tyro

from imagen_jax import config
from imagen_jax.cli import parsing
from imagen_jax.cloud import run_record, untrusted
from imagen_jax.cloud.worker import BEAT, Worker, WorkerId, is_repeated_crash
from imagen_jax.config.digits import parse_whole
from imagen_jax.io import whole_files, workdir
from imagen_jax.runtime import exit_codes

USAGE = """Run on each worker: wait for the others, run the launch's commands, write reports and
the log to WORKDIR/launch/ATTEMPT. With `-- imagen train ...` that command runs instead.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """The worker that this is."""

    folder: tyro.conf.Positional[str]
    """Folder of the launch: WORKDIR/launch, in a bucket."""
    attempt: str
    """Name of a folder of its own for each start: a number."""
    worker: config.Whole | None = None
    """Number of this worker, from 0; default: from TPU_WORKER_ID, as GKE sets it."""
    of: config.Parallel | None = None
    """Number of workers; default: from TPU_WORKER_HOSTNAMES."""
    generation: str | None = None
    """Generation of the TPU, for its compiler options, such as v5e."""
    log: Path | None = None
    """File that this command's output goes to, to be copied to the bucket."""
    beat: config.Positive = BEAT
    """Seconds between two reports."""
    alone: bool = False
    """End with code 1 after a second crash at the same step, in the attempt before: for launches
    without `imagen launch watch`."""


def run(own: list[str], rest: list[str]) -> int:
    """The exit code of the command."""
    options = parsing.parse(Options, own, prog="imagen launch worker", description=USAGE)
    worker, of = options.worker, options.of
    here = len(os.environ.get("TPU_WORKER_HOSTNAMES", "localhost").split(","))
    if worker is None:
        slice_ = parse_whole(os.environ.get("MEGASCALE_SLICE_ID", "0"))
        worker = parse_whole(os.environ.get("TPU_WORKER_ID", "0")) + slice_ * here
    if of is None:
        of = here * parse_whole(os.environ.get("MEGASCALE_NUM_SLICES", "1"))
    folder = workdir.as_path(options.folder)
    commands, once = ((tuple(rest),), ()) if rest else _recorded(folder)
    if rest and (rest[0] != "imagen" or len(rest) < 2):
        raise ValueError(f"-- {' '.join(rest)}: give a command of imagen, such as imagen train ...")
    worker_id = WorkerId(folder=folder / options.attempt, worker=worker, of=of, log=options.log)
    code = Worker(worker_id, generation=options.generation, beat=options.beat).run(commands, once)
    if options.alone and is_repeated_crash(worker_id):
        print("imagen launch worker: as the attempt before: another start would not help")
        return exit_codes.REFUSED
    return code


def _recorded(folder: workdir.Workdir) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...]]:
    """The commands, and the places of those that worker 0 alone runs."""
    file = folder / run_record.FILE
    if not file.is_file():
        raise ValueError(
            f"{folder} has no {run_record.FILE}: give the folder of an `imagen launch tpu`, or the "
            "command after --"
        )
    text = whole_files.read_beginning(file, untrusted.MAX_TEXT + 1).decode(errors="replace")
    job = run_record.from_json(text, where=str(file)).job
    return job.commands, job.once
