"""`imagen encode SOURCE`: encode captions once, into a store of (image, encoding) pairs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from imagen_jax import config

if TYPE_CHECKING:
    from imagen_jax.data.store import Store
    from imagen_jax.text.cache import Written

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
                                             its pictures may have any size

What is already there is not done again: give the command once more to go on. Several processes
(every host of a TPU slice) share the work where they write to the same folder.
"""
MAX_LENGTH = 128  # tokens


@dataclasses.dataclass(frozen=True)
class Options:
    """What to encode."""

    source: tyro.conf.Positional[str]
    """A config file, or a folder of them (a cascade); with --out a data source."""
    data_dir: Path = Path("data")
    """Folder of datasets; the pairs of a config go to its subfolder `encoded`."""
    out: Path | None = None
    """Folder of the pairs of a data source; `imagen train --pairs` takes it."""
    encoder: str | None = None
    """With --out: an embedded encoder's name, or a folder, T5X's (or gs://) or Hugging Face's."""
    tokenizer: str = ""
    """With --out: a SentencePiece model; default: the *.model beside the encoder."""
    sizes: tuple[int, ...] = ()
    """With --out: sides of the pictures to keep, such as 64 256."""
    max_length: int = MAX_LENGTH
    """With --out: tokens of a caption, at most, end of sentence included."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """With --out: the encoder's matrices and products; bfloat16 on accelerators."""
    clean: bool = False
    """With --out: strip HTML, addresses and file names from captions."""
    framing: Annotated[config.Framing, tyro.conf.arg(name="")] = config.Framing()
    """With --out: how pictures of any size become squares; for a config they have to be some."""
    filters: Annotated[config.Filters, tyro.conf.arg(name="")] = config.Filters()
    """With --out: what is dropped, beside what cannot be read or is smaller than the sizes."""
    text_dtype: Literal["bfloat16", "float32", "int8"] = "bfloat16"
    """How encodings are stored; int8 has a scale for each token."""
    shard_records: int | None = None
    """Pairs in a file, default 8,192; its captions are encoded together, in memory."""
    batch_tokens: int | None = None
    """Tokens that are computed at once; default 16,384."""
    processes: Annotated[config.Processes, tyro.conf.arg(name="")] = config.Processes()
    """Several processes, such as the hosts of a TPU slice."""

    def __post_init__(self) -> None:
        alone = ("encoder", "tokenizer", "sizes", "max_length", "dtype", "clean")
        changed = [name for options in (self.framing, self.filters) for name in _changed(options)]
        changed += [name for name in _changed(self) if name in alone]
        config.require(
            self.out is not None or not changed,
            f"--{''.join(changed[:1]).replace('_', '-')} needs --out: without it SOURCE is a "
            "config, which says how its dataset is encoded",
        )
        config.require(
            self.out is None or (self.encoder is not None and bool(self.sizes)),
            f"--out {self.out} needs --encoder and --sizes too: SOURCE is then a data source",
        )
        largest = max(self.sizes, default=1)
        config.require(
            all(size > 0 and largest % size == 0 for size in self.sizes),
            f"--sizes {' '.join(map(str, self.sizes))}: each has to divide the largest",
        )
        for name in ("shard_records", "batch_tokens"):
            value = getattr(self, name)
            config.require(
                value is None or value > 0, f"--{name.replace('_', '-')} {value} must be positive"
            )


def _changed(options: Any) -> list[str]:
    """Names of the fields that are not at their defaults."""
    fields = dataclasses.fields(options)
    return [f.name for f in fields if getattr(options, f.name) != f.default]


def run(argv: list[str]) -> None:
    """Parse, then encode a source, or every (dataset, split) that a config's stages train on."""
    options = tyro.cli(Options, args=argv, prog="imagen encode", description=USAGE)
    from imagen_jax import compilation, distributed

    distributed.start(options.processes)
    compilation.use_cache()
    for job in list(_source(options) if options.out else _config(options)):
        _encode(job, options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One store to write."""

    address: Any  # sources.Address
    text: config.Text
    sizes: tuple[int, ...]
    folder: Path
    framing: config.Framing | None = None
    filters: config.Filters = config.Filters()


def _source(options: Options):
    """The store of a data source, as the command describes it."""
    from imagen_jax.data import sources
    from imagen_jax.text import encoder

    assert options.encoder is not None
    assert options.out is not None
    width = encoder.config_of(options.encoder).width
    text = config.Text(
        encoder=options.encoder,
        tokenizer=options.tokenizer,
        width=width,
        max_length=options.max_length,
        dtype=options.dtype,
        clean=options.clean,
    )
    address = sources.parse(options.source)
    yield Job(
        address=address,
        text=text,
        sizes=options.sizes,
        folder=options.out,
        framing=options.framing,
        filters=options.filters,
    )


def _config(options: Options):
    """A store for each (dataset, split) of a config, at the sizes of every stage that needs it."""
    from imagen_jax.data import sources
    from imagen_jax.text import cache

    stages: dict[tuple[str, str], list[config.Experiment]] = {}
    for experiment in config.load(options.source):
        data = experiment.data
        stages.setdefault((data.dataset, data.split), []).append(experiment)
    for (dataset, split), group in stages.items():
        text = group[0].text
        yield Job(
            address=sources.Address(dataset, split),
            text=text,
            sizes=tuple(sorted({e.stage.size for e in group})),
            folder=cache.path(options.data_dir, dataset=dataset, split=split, encoder=text.encoder),
        )


def _encode(job: Job, options: Options) -> None:
    import jax

    from imagen_jax.data import sources, store
    from imagen_jax.text import cache
    from imagen_jax.text.encoder import TextEncoder

    source = sources.open(job.address, options.data_dir)
    encoder = TextEncoder.of(job.text)
    if options.batch_tokens is not None:
        encoder = dataclasses.replace(encoder, batch_tokens=options.batch_tokens)
    data = config.Data(dataset=job.address.dataset, split=job.address.split)
    wanted = dataclasses.replace(
        cache.target(encoder, source, folder=job.folder, data=data, text=job.text, sizes=job.sizes),
        framing=job.framing,
        filters=job.filters,
        text_dtype=options.text_dtype,
        shard_records=options.shard_records or store.SHARD_RECORDS,
    )
    share = cache.Share(jax.process_index(), jax.process_count())
    written = cache.write(source, encoder, wanted, share=share, progress=share.process == 0)
    print(_summary(written, wanted, share), flush=True)


def _summary(written: Written, wanted: Store, share: Any) -> str:
    counts = written.counts
    what = f"(image, encoding) pairs of {wanted.dataset} ({wanted.split})"
    if written.store is not None:
        lines = [f"{written.store.count:,} {what} in {wanted.folder}", *_skipped(written.store)]
    else:
        lines = [
            f"process {share.process} of {share.processes} is done with its share of the {what}; "
            f"the last one completes {wanted.folder}, which all of them have to see"
        ]
    if counts.captions:
        padded = counts.different * wanted.max_length
        lines.append(
            f"{counts.different:,} different captions of {counts.captions:,} encoded: "
            f"{counts.useful / counts.different:.1f} tokens each, "
            f"{counts.useful / counts.computed:.1%} of the tokens computed are useful, "
            f"{padded / counts.computed:.1f} times fewer than padded to {wanted.max_length}; "
            f"stored as {wanted.text_dtype} with an error of {counts.error:.2%}"
        )
    if counts.cut:
        lines.append(
            f"{counts.cut:,} captions are longer than {wanted.max_length} tokens and were cut"
        )
    return "\n".join(lines)


def _skipped(found: Store) -> list[str]:
    """The line about what a store lacks of its source, if it lacks anything."""
    from imagen_jax.data import skipped

    if not found.skipped:
        return []
    return [
        f"{found.examples - found.count:,} of {found.examples:,} examples were skipped: "
        f"{skipped.summary(found.skipped)}; each is listed in {found.folder / skipped.FILE}"
    ]


def find_store(experiment: config.Experiment, data_dir: Path, pairs: Path | None = None) -> Store:
    """The pairs that `experiment` trains on. Errors: FileNotFoundError, ValueError; see `store`."""
    from imagen_jax.data import store
    from imagen_jax.text import cache

    data, text = experiment.data, experiment.text
    usual = cache.path(data_dir, dataset=data.dataset, split=data.split, encoder=text.encoder)
    return store.open(pairs or usual)
