"""`imagen encode SOURCE`: encode captions once, into a store of (image, encoding) pairs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from imagen_jax import config
from imagen_jax.cli import devices, parsing, supervision
from imagen_jax.cli.store_options import StoreOptions
from imagen_jax.parallel import distributed

if TYPE_CHECKING:
    from imagen_jax.data.prepare.jobs import EncodeJob

USAGE = """Encode captions once, with a frozen text encoder; training reads the pairs alone.

  imagen encode CONFIG                       the datasets of a config or cascade, with its encoder
  imagen encode SOURCE --for CONFIG --out DIR
                                             any data source, for a config or cascade to train on
                                             (`imagen train CONFIG --pairs DIR`):
                                             shapes/NAME[?split=S] or emoji[?split=S]
                                             tfds:NAME[?split=S&image=FEATURE&text=FEATURE]
                                             tars:PATH[?text=FIELD]
                                             folder:PATH[?text=COLUMN]
                                             parquet:PATH[?image=COLUMN&text=COLUMN]
                                             mixture:FILE, a file with one of these a line
                                             a folder, .tar, .parquet or metadata.jsonl by its path
                                             its images may have any size
  imagen encode SOURCE --encoder PATH --sizes 64 256 --out DIR
                                             the same without a config

Encoded parts are kept: give the same command again to resume. Several processes
(every host of a TPU slice) share the work: --out is then in a bucket, gs://..., or
in a folder that all of them mount.
"""
OF_CONFIGS = frozenset({"text-dtype", "shard-records", "batch-tokens"})  # without --out, too


@dataclasses.dataclass(frozen=True)
class Options:
    """The dataset or source to encode."""

    source: tyro.conf.Positional[tuple[str, ...]]
    """Config file, or folder of them (a cascade); with --out a data source, or several tars or
    Parquet files."""
    data_dir: Path = Path("data")
    """Folder of datasets; the pairs of a config go to its subfolder `encoded`."""
    pairs: Annotated[StoreOptions, tyro.conf.arg(name="")] = StoreOptions()
    processes: Annotated[config.Processes, tyro.conf.arg(name="")] = config.Processes()
    """Several processes, such as the hosts of a TPU slice."""

    def __post_init__(self) -> None:
        self.pairs.check()
        config.require(
            len(self.source) == 1 or (self.pairs.out is not None and bool(self.source)),
            f"give one config, or with --out a data source, and not {len(self.source)} names",
        )
        changed = [name for name in self.pairs.changed_options() if name not in OF_CONFIGS]
        config.require(
            self.pairs.out is not None or not changed,
            f"--{''.join(changed[:1])} needs --out: without it SOURCE is a "
            "config, which says how its dataset is encoded",
        )


def run(argv: list[str]) -> None:
    """Parse, then encode a source, or every (dataset, split) that a config's stages train on."""
    options = parsing.parse(Options, argv, prog="imagen encode", description=USAGE)
    if supervision.needs_child(options.processes):
        supervision.run_child("encode", argv, resumes="after what is encoded")
        return
    from imagen_jax.parallel import compilation_cache

    distributed.initialize(options.processes)
    compilation_cache.use_cache()
    devices.report_devices()
    if options.pairs.out is not None:
        _encode(options.pairs.job(options.source, options.data_dir))
        return
    from imagen_jax.data.prepare import jobs
    from imagen_jax.data.sources import bare_paths

    if bare_paths.holds_data(options.source[0]):  # whose programs, if it has some, are anybody's
        raise ValueError(
            f"{options.source[0]} is a folder of data and no config: give --out, the folder of "
            "its pairs"
        )
    experiments, storage = config.load(options.source[0]), options.pairs.storage()
    for job in jobs.config_jobs(experiments, options.data_dir, **storage):
        _encode(job)


def _encode(job: EncodeJob) -> None:
    import jax

    from imagen_jax.data.prepare import encode, shared_folder, summary

    shared_folder.require_shared(job.folder)
    source, encoder, target = job.open()
    share = encode.ProcessShare(jax.process_index(), jax.process_count())
    written = encode.write_store(source, encoder, target, share=share, progress=share.process == 0)
    print(
        summary.describe_skipped(source, job.address)
        + summary.summarize_store(written, job, share),
        flush=True,
    )
