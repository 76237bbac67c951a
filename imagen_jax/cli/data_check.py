"""`imagen data check SOURCE`: what a source holds, and what would become of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from imagen_jax import config


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """Report sizes, lengths of captions, damage, duplicates and what filters drop of a source.

    Headers and ends of files are read; decoded are the contact sheet's images, and those that do
    not end where their bytes do.
    """

    source: tyro.conf.Positional[tuple[str, ...]]
    """A data source, or several tars or Parquet files; `imagen encode --help` lists the forms."""
    data_dir: Path = Path("data")
    """Folder of datasets, and of indices of tars."""
    out: Path = Path("check")
    """Folder for report.md, check.json and contact_sheet.png."""
    sample: config.Count | None = None
    """Look at so many examples alone, drawn at random."""
    decode: bool = False
    """Decode every image, which takes long, and finds damage in their middle."""
    tokenizer: str = "t5_1_1_mini"
    """Counts tokens: an embedded encoder's name, or a SentencePiece FILE.model."""
    filters: config.Filters = config.Filters()
    workers: config.Workers | None = None
    """Processes; default: one per core."""
    count: config.Images = 24
    """Images of the contact sheet."""
    seed: config.Seed = 0
    """Seed of what is drawn at random."""


def run(options: CheckOptions) -> None:
    """Inspect, write, print. Errors: ValueError for a number that is out of its range."""
    config.check_options(options)
    from imagen_jax.data import inspect
    from imagen_jax.data.sources import bare_paths, base

    config.require(bool(options.source), "give a data source")

    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(inspect.DEFAULTS)}
    found = inspect.inspect_source(
        bare_paths.join_addresses(options.source),
        inspect.InspectionSettings(**given),
        data_dir=options.data_dir,
    )
    rate = found.looked_at / found.seconds
    found.write(options.out)
    print(
        f"{found.to_markdown()}\n{rate:,.0f} examples/s, {1e6 / rate:,.0f} s for a million; "
        f"all of it is in {base.make_printable(str(options.out))}"
    )
