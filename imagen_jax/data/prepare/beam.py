"""A store made by an Apache Beam pipeline, on this machine or on Dataflow: an element is a shard.

Needs the extra `beam`.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

import apache_beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from imagen_jax.data.prepare import jobs
from imagen_jax.data.prepare.encode import Counts, Written
from imagen_jax.data.prepare.jobs import EncodeJob
from imagen_jax.data.store import store
from imagen_jax.data.store.store import Store

LOCAL = "FnApiRunner"  # Beam's own choice would look for another one to download


class WriteShard(apache_beam.DoFn):
    """The number of a shard to the counts of what was written."""

    def __init__(self, job: EncodeJob) -> None:
        self._job = job

    def setup(self) -> None:
        """Open source and encoder, which all of this process's copies share."""
        jobs.open_resources(self._job)

    def process(self, element: int) -> Iterator[Counts]:
        yield jobs.write_shard(self._job, element, done=_ignore)


def build_with_beam(job: EncodeJob, arguments: Sequence[str] = ()) -> Written:
    """Write what a job's store lacks by a pipeline with these options of Beam's.

    The last step writes the index: it is there even if this process is gone by then.
    Errors: as `jobs.begin_job`; ValueError for options that Beam refuses; ChildProcessError with
    the reason when the pipeline failed.
    """
    begun = jobs.begin_job(job)
    if begun.finished is not None:
        return Written(begun.finished)
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    standard.runner = standard.runner or LOCAL
    try:
        pipeline = apache_beam.Pipeline(options=options)
    except ValueError as error:
        reasons = "; ".join(str(error).strip().splitlines())
        raise ValueError(f"Beam refuses its options: {reasons}") from error
    _ = (
        pipeline
        | "missing shards" >> apache_beam.Create(begun.missing)
        | "one to a bundle" >> apache_beam.Reshuffle()
        | "write" >> apache_beam.ParDo(WriteShard(job))
        | "count" >> apache_beam.CombineGlobally(_sum)
        | "write the index" >> apache_beam.Map(_finish, begun.target)
    )
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it raises, too
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:  # of any kind, with the workers' stacks in its text
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ChildProcessError(
            f"the Beam pipeline for {job.folder} failed: {reason[-1]}"
        ) from error
    return Written(store.open_store(job.folder))


def _sum(counts: Iterable[Counts]) -> Counts:
    return sum(counts, Counts())


def _finish(counts: Counts, target: Store) -> Counts:
    """Errors: FileNotFoundError when shards are missing although all were written."""
    if store.finish_store(target) is None:
        raise FileNotFoundError(
            f"{target.folder} lacks shards that were written: it has to be a folder that all "
            "workers see"
        )
    return counts


def _ignore(examples: int) -> None:
    """Beam's runners have their own display."""
