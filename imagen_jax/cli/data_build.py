"""`imagen data build SOURCE`: an embedded dataset, or with --out the pairs of any source."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from imagen_jax import config, extras
from imagen_jax.cli.store_options import StoreOptions


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """Draw an embedded dataset as a TFDS dataset in ArrayRecord files; or, with --out, prepare any
    data source as (image, encoding) pairs, the bytes that `imagen encode` writes on a CPU, by
    several processes of this machine or a pipeline of Apache Beam.

    With --out the same command resumes where it was interrupted, and processes encode on the CPU;
    with an accelerator `imagen encode` is the better choice.
    """

    source: tyro.conf.Positional[tuple[str, ...]]
    """Dataset: shapes/full; shapes/quickstart (fewer, each of one large plain object); emoji; or
    emoji/styles, which --styles makes of emoji.
    With --out any data source, or several tars or Parquet files; `imagen encode --help` lists
    the forms."""
    data_dir: Path = Path("data")
    """Folder of datasets, and of indices of tars."""
    workers: config.Workers | None = None
    """Processes; default: one per core. With --out each holds the encoder and a shard."""
    font: Path | None = None
    """Font that emoji are taken from, with bitmaps in a table CBDT; default: Noto Color Emoji
    of the Debian package fonts-noto-color-emoji."""
    styles: tuple[str, ...] = ()
    """Draw emoji of several sets, emoji/styles: two or more of noto, openmoji, twemoji,
    fluent-flat, fluent-contrast and fluent-3d, each alone where npm (in node_modules), pip or
    Debian installed it, or as NAME=PATH: npm's package as a .tgz or a folder, or noto's font."""
    keywords: Path | None = None
    """Package emojibase-data of npm (.tgz or folder): keywords and categories for captions of
    --styles; default: where npm installed it, else captions have names alone."""
    categories: tuple[str, ...] = ()
    """Draw only emoji of --styles in these of Unicode's subgroups, such as animal-bird; `animal`
    is all that begin so, `animal=4` puts each four times into the split train. --keywords has the
    subgroups. Default: every emoji once."""
    beam: bool = False
    """Run as an Apache Beam pipeline; needs --out. Its options come last, after `--`:
    `-- --runner=DataflowRunner --project=...`. Source, encoder, --data-dir and --out have to be
    seen by all workers at the same path; --out may be in a bucket (gs://). Default: Beam's own
    runner for this machine, in this process."""
    pairs: Annotated[StoreOptions, tyro.conf.arg(name="")] = StoreOptions()

    def __post_init__(self) -> None:
        config.check_options(self)
        self.pairs.check()
        config.require(
            len(self.source) == 1 or (self.pairs.out is not None and bool(self.source)),
            f"give one dataset, or with --out a data source, and not {len(self.source)} names",
        )
        changed = [*self.pairs.changed_options(), *(["beam"] if self.beam else [])]
        config.require(
            self.pairs.out is not None or not changed,
            f"--{''.join(changed[:1])} needs --out, the folder of the pairs: "
            "without it an embedded dataset is drawn",
        )
        config.require(
            self.font is None or self.pairs.out is None,
            f"--font {self.font} is for drawing emoji; --out {self.pairs.out} takes what was drawn",
        )
        config.require(
            bool(self.styles) or self.keywords is None,
            f"--keywords {self.keywords} is for captions of --styles, which is not given",
        )
        config.require(
            bool(self.styles) or not self.categories,
            f"--categories {' '.join(self.categories)} is of emoji in --styles, which is not given",
        )
        config.require(
            not self.styles or self.pairs.out is None,
            f"--styles is for drawing emoji; --out {self.pairs.out} takes what was drawn",
        )
        config.require(
            self.workers is None or not self.beam,
            f"--workers {self.workers}: Beam has its own; on this machine end the command with "
            f"-- --direct_running_mode=multi_processing --direct_num_workers={self.workers}",
        )


def run(options: BuildOptions, beam_options: Sequence[str]) -> None:
    """Draw or prepare. Errors: ValueError for options of Beam without it."""
    if beam_options and not options.beam:
        raise ValueError(f"{beam_options[0]} after -- is an option of Beam's, and needs --beam")
    if options.pairs.out is None:
        _draw(options)
    else:
        _prepare(options, beam_options)


def full_name(dataset: str) -> str:
    """`shapes/full` for `shapes`. Errors: ValueError for a dataset that is not ours."""
    family, _, name = dataset.partition("/")
    if family not in ("shapes", "emoji"):
        raise ValueError(
            f"no dataset {dataset!r}; there are shapes/full, shapes/quickstart, emoji and "
            "emoji/styles, and any source can be prepared as pairs with --out"
        )
    return f"{family}/{name or 'full'}"


def _draw(options: BuildOptions) -> None:
    name = full_name(options.source[0])
    if options.styles and options.source[0] == "emoji":
        name = "emoji/styles"
    built: Any  # a builder of TFDS
    if name.startswith("emoji/"):
        built = _draw_emoji(name, options)
    else:
        from imagen_jax.data.synthetic.shapes import dataset as shapes

        if options.font is not None:
            raise ValueError(f"--font {options.font}: {name} is drawn without; leave it out")
        if options.styles:
            raise ValueError(f"--styles is for emoji, and {name} has none; leave it out")
        built = shapes.build_shapes(name, str(options.data_dir), workers=options.workers)
    splits = ", ".join(f"{split.num_examples:,} {n}" for n, split in built.info.splits.items())
    print(f"{name} is in {options.data_dir}: {splits}")


def _draw_emoji(name: str, options: BuildOptions) -> Any:
    extras.require("emoji", f"building {name} needs")
    if options.workers is not None:
        raise ValueError(f"--workers {options.workers}: one process draws emoji; leave it out")
    if name == "emoji/styles":
        from imagen_jax.data.synthetic.emoji import styles_dataset

        if options.font is not None:
            raise ValueError(f"--font {options.font}: {name} takes it as --styles noto=FONT")
        return styles_dataset.build_styles(
            str(options.data_dir),
            styles=options.styles,
            keywords=options.keywords,
            categories=options.categories,
        )
    from imagen_jax.data.synthetic.emoji import dataset

    if options.styles:
        raise ValueError(f"--styles makes emoji/styles, and not {name}: give emoji")
    return dataset.build_emoji(name, str(options.data_dir), font=options.font)


def _prepare(options: BuildOptions, beam_options: Sequence[str]) -> None:
    from imagen_jax.data.prepare import summary

    if options.beam:
        extras.require("apache_beam", "--beam needs")
        from imagen_jax.data.prepare import beam

        job = options.pairs.job(options.source, options.data_dir)
        written = beam.build_with_beam(job, beam_options)
    else:
        start_process()
        from imagen_jax.data.prepare import multiprocess

        job = options.pairs.job(options.source, options.data_dir)
        written = multiprocess.build_store(job, processes=options.workers, start=start_process)
    print(
        summary.describe_skipped(job.open_source(), job.address)
        + summary.summarize_store(written, job),
        flush=True,
    )


def start_process() -> None:
    """Before any use of jax: processes cannot share an accelerator, but programs."""
    import jax

    from imagen_jax.parallel import compilation_cache

    jax.config.update("jax_platforms", "cpu")
    compilation_cache.use_cache()
