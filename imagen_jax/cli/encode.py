"""`imagen encode SOURCE`: encode captions once, into a store of (image, encoding) pairs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from imagen_jax import config
from imagen_jax.cli import parsing, store_options
from imagen_jax.cli.store_options import StoreOptions

if TYPE_CHECKING:
    from imagen_jax.data.prepare.jobs import EncodeJob
    from imagen_jax.data.store.store import Store

USAGE = """Encode captions once, with a frozen text encoder; training reads the pairs alone.

  imagen encode CONFIG                       the datasets of a config or cascade, with its encoder
  imagen encode SOURCE --encoder PATH --sizes 64 256 --out DIR
                                             any data source:
                                             shapes/NAME[?split=S] or emoji[?split=S]
                                             tfds:NAME[?split=S&image=FEATURE&text=FEATURE]
                                             tars:PATH[?text=FIELD]
                                             folder:PATH[?text=COLUMN]
                                             parquet:PATH[?image=COLUMN&text=COLUMN]
                                             mixture:FILE, a file with one of these a line
                                             its images may have any size

Encoded parts are kept: give the same command again to resume. Several processes
(every host of a TPU slice) share the work where they write to the same folder.
"""
OF_CONFIGS = frozenset({"text_dtype", "shard_records", "batch_tokens"})  # without --out, too


@dataclasses.dataclass(frozen=True)
class Options:
    """The dataset or source to encode."""

    source: tyro.conf.Positional[str]
    """Config file, or folder of them (a cascade); with --out a data source."""
    data_dir: Path = Path("data")
    """Folder of datasets; the pairs of a config go to its subfolder `encoded`."""
    pairs: Annotated[StoreOptions, tyro.conf.arg(name="")] = StoreOptions()
    processes: Annotated[config.Processes, tyro.conf.arg(name="")] = config.Processes()
    """Several processes, such as the hosts of a TPU slice."""

    def __post_init__(self) -> None:
        self.pairs.check()
        changed = [name for name in self.pairs.changed() if name not in OF_CONFIGS]
        config.require(
            self.pairs.out is not None or not changed,
            f"--{''.join(changed[:1]).replace('_', '-')} needs --out: without it SOURCE is a "
            "config, which says how its dataset is encoded",
        )


def run(argv: list[str]) -> None:
    """Parse, then encode a source, or every (dataset, split) that a config's stages train on."""
    options = parsing.parse(Options, argv, prog="imagen encode", description=USAGE)
    from imagen_jax.parallel import compilation_cache, distributed

    distributed.initialize(options.processes)
    compilation_cache.use_cache()
    of_source = options.pairs.out is not None
    found = [options.pairs.job(options.source, options.data_dir)] if of_source else _jobs(options)
    for job in found:
        _encode(job)


def _jobs(options: Options) -> list[EncodeJob]:
    """A store for each (dataset, split) of a config, at the sizes of every stage that needs it."""
    from imagen_jax.data.prepare import encode
    from imagen_jax.data.prepare.jobs import EncodeJob
    from imagen_jax.data.sources.base import Address

    stages: dict[tuple[str, str], list[config.Experiment]] = {}
    for experiment in config.load(options.source):
        data = experiment.data
        stages.setdefault((data.dataset, data.split), []).append(experiment)
    folder = options.data_dir
    return [
        EncodeJob(
            address=Address(dataset, split),
            data_dir=folder,
            text=(text := group[0].text),
            sizes=tuple(sorted({e.stage.size for e in group})),
            folder=encode.store_path(folder, dataset=dataset, split=split, encoder=text.encoder),
            **options.pairs.storage(),
        )
        for (dataset, split), group in stages.items()
    ]


def _encode(job: EncodeJob) -> None:
    import jax

    from imagen_jax.data.prepare import encode

    source, encoder, target = job.open()
    share = encode.ProcessShare(jax.process_index(), jax.process_count())
    written = encode.write_store(source, encoder, target, share=share, progress=share.process == 0)
    said = store_options.describe_skipped(source, job.address) + store_options.summary(
        written, job, share
    )
    print(said, flush=True)


def find_store(experiment: config.Experiment, data_dir: Path, pairs: Path | None = None) -> Store:
    """The pairs that `experiment` trains on. Errors: FileNotFoundError, ValueError; see `store`."""
    from imagen_jax.data.prepare import encode
    from imagen_jax.data.store import store

    data, text = experiment.data, experiment.text
    usual = encode.store_path(
        data_dir, dataset=data.dataset, split=data.split, encoder=text.encoder
    )
    return store.open_store(pairs or usual)
