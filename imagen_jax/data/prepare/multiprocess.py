"""A store made by several processes of this machine: whichever is free takes the next shard."""

import functools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from imagen_jax.data import worker_pool
from imagen_jax.data.prepare import jobs
from imagen_jax.data.prepare.encode import Counts, Written
from imagen_jax.data.prepare.jobs import EncodeJob, JobProgress
from imagen_jax.data.store import store

PERIOD = 0.5  # seconds between two looks at how far the processes are


def build_store(
    job: EncodeJob,
    *,
    processes: int | None = None,
    start: Callable[[], None] | None = None,
    progress: bool = True,
) -> Written:
    """Write what a job's store lacks, by so many processes, one per core unless told.

    Each process calls `start` first. A shard's bytes don't depend on who writes it.
    Errors: as `jobs.begin_job` and `jobs.write_shard`; ChildProcessError when a process died.
    """
    begun = jobs.begin_job(job)
    if begun.finished is not None:
        return Written(begun.finished)
    count = min(processes or os.cpu_count() or 1, len(begun.missing))
    counts = Counts()
    if begun.missing:  # else it was interrupted just before its index was written
        tally = multiprocessing.get_context("spawn").Value("q", 0)  # of examples, by all processes
        threads = max(1, (os.cpu_count() or 1) // count)
        ready = functools.partial(_ready, tally, threads, start)
        counts = _finish(worker_pool.start_pool(count, start=ready), job, begun, tally, progress)
    return Written(store.finish_store(begun.target), counts)


def _finish(
    pool: ProcessPoolExecutor, job: EncodeJob, begun: JobProgress, tally: Any, progress: bool
) -> Counts:
    """Write all shards that are missing; the pool is of no use afterwards."""
    target, counts, waiting = begun.target, Counts(), set[Future[Counts]]()
    others = set(multiprocessing.active_children())
    total = sum(len(target.shards()[n]) for n in begun.missing)
    try:
        with tqdm(total=total, desc=target.dataset, unit="img", disable=not progress) as bar:
            waiting = {pool.submit(_write, job, number) for number in begun.missing}
            while waiting:
                ended, waiting = wait(waiting, timeout=PERIOD, return_when=FIRST_COMPLETED)
                counts = sum((future.result() for future in ended), counts)
                bar.update(tally.get_obj().value - bar.n)  # the dead may hold its lock
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"a process that wrote shards of {target.folder} died; usually memory ran out, for "
            "each holds the encoder and the images of a shard: the same command resumes it, with "
            "fewer --workers or, in an empty folder, smaller --shard-records"
        ) from error
    finally:
        if waiting:  # after an error: shards under way are not worth waiting for
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(cancel_futures=True)
    return counts


class _Process:
    """Arguments that a process was started with."""

    tally: Any
    threads: int


def _ready(tally: Any, threads: int, start: Callable[[], None] | None) -> None:
    _Process.tally, _Process.threads = tally, threads
    if start is not None:
        start()


def _write(job: EncodeJob, number: int) -> Counts:
    return jobs.write_shard(job, number, done=_count, threads=_Process.threads)


def _count(examples: int) -> None:
    with _Process.tally.get_lock():
        _Process.tally.value += examples
