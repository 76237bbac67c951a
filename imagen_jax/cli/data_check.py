"""`imagen data check SOURCE`: what a source holds, and what would become of it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from imagen_jax import config

if TYPE_CHECKING:
    from imagen_jax.data.inspect import DatasetReport
    from imagen_jax.data.sources.base import Source
    from imagen_jax.text.tokenizer import Tokenizer

SHOWN = 5  # names of each reason; check.json has more
SIDE, COLUMNS = 160, 6  # pixels of a picture on the contact sheet, and pictures of a row
CAPTION = 200  # characters of one on the contact sheet
QUANTILES = (0, 1, 50, 99, 100)  # percent


@dataclasses.dataclass(frozen=True)
class Check:
    """Say what a source holds: sizes, lengths of captions, damage, duplicates, what filters drop.

    Headers and ends of files are read; decoded are the contact sheet's pictures, and those that do
    not end where their bytes do.
    """

    source: tyro.conf.Positional[str]
    """A data source; `imagen encode --help` lists the forms."""
    data_dir: Path = Path("data")
    """Where datasets live, and indices of tars."""
    out: Path = Path("check")
    """Folder for report.md, check.json and contact_sheet.png."""
    sample: config.Count | None = None
    """Look at so many examples alone, drawn at random."""
    decode: bool = False
    """Decode every picture, which takes long, and finds damage in their middle."""
    tokenizer: str = "t5_1_1_mini"
    """Counts tokens: an embedded encoder's name, or a SentencePiece FILE.model."""
    filters: config.Filters = config.Filters()
    workers: config.Count | None = None
    """Processes; default: one per core."""
    count: config.Count = 24
    """Pictures of the contact sheet."""
    seed: config.Seed = 0
    """Of what is drawn at random."""


def run(options: Check) -> None:
    """Look, print, write. Errors: ValueError for a number that is out of its range."""
    config.check_options(options)
    from imagen_jax.data import inspect
    from imagen_jax.data.sources import addresses, base

    source = addresses.open_source(addresses.parse_address(options.source), options.data_dir)
    draw = np.random.default_rng(options.seed)
    count = min(options.sample or len(source), len(source))
    chosen: Any = range(len(source))
    if count < len(source):
        chosen = np.sort(draw.choice(len(source), count, replace=False)).tolist()
    look = inspect.ExampleInspector(
        source, options.filters, _tokenizer(options.tokenizer).lengths, options.decode
    )
    start = time.perf_counter()
    found = inspect.inspect_source(look, chosen, processes=options.workers)
    rate = count / (time.perf_counter() - start)
    options.out.mkdir(parents=True, exist_ok=True)
    report = _report(options.source, found)
    (options.out / "report.md").write_text(report, encoding="utf-8")
    (options.out / "check.json").write_text(json.dumps(_document(found), indent=2) + "\n")
    some = draw.choice(len(source), min(options.count, len(source)), replace=False)
    _sheet(source, some.tolist(), options.out / "contact_sheet.png")
    print(
        f"{report}\n{rate:,.0f} examples/s, {1e6 / rate:,.0f} s for a million; "
        f"all of it is in {base.make_printable(str(options.out))}"
    )


def _tokenizer(name: str) -> Tokenizer:
    from imagen_jax.text import encoder
    from imagen_jax.text.tokenizer import Tokenizer

    if name in encoder.EMBEDDED:
        return Tokenizer.load(encoder.find_tokenizer(str(encoder.EMBEDDED[name])))
    return Tokenizer.load(name)


def _report(name: str, found: DatasetReport) -> str:
    from imagen_jax.data.sources import base

    short = np.minimum(found.width, found.height)
    aspect = np.maximum(found.width, found.height) / np.maximum(short, 1)
    rows = {
        "short side, pixels": short,
        "long side by short side": aspect,
        "caption, tokens": found.tokens,
        "captions of a picture": found.captions,
        "kilobytes": found.bytes / 1000,
    }
    lines = [
        f"# {base.make_printable(name)}",
        "",
        f"{found.examples:,} examples, {found.looked_at:,} looked at.",
        "",
    ]
    lines += [
        "| | least | 1 % below | half below | 99 % below | most |",
        "|---|---|---|---|---|---|",
    ]
    for what, values in rows.items():
        cells = np.percentile(values, QUANTILES) if len(values) else [np.nan] * len(QUANTILES)
        lines.append(f"| {what} | " + " | ".join(f"{x:.4g}" for x in cells) + " |")
    for title, names in (("left out", found.left_out), ("duplicates", found.again)):
        lines += ["", f"{title}: {'none' if not names else ''}".rstrip()]
        for reason, keys in names.items():
            more = ", ..." if keys.total > SHOWN else ""
            lines.append(f"* {reason}: {keys.total:,} ({', '.join(keys[:SHOWN])}{more})")
    return "\n".join(lines) + "\n"


def _document(found: DatasetReport) -> dict[str, Any]:
    names = {
        kind: {reason: {"total": n.total, "keys": list(n)} for reason, n in group.items()}
        for kind, group in (("left_out", found.left_out), ("duplicates", found.again))
    }
    columns = ("width", "height", "tokens", "captions", "bytes")
    quantiles = {
        name: dict(zip(map(str, QUANTILES), np.percentile(values, QUANTILES).tolist(), strict=True))
        for name in columns
        if len(values := getattr(found, name))
    }
    return {
        "examples": found.examples,
        "looked_at": found.looked_at,
        "readable": len(found.width),
        "percentiles": quantiles,
        **names,
    }


def _sheet(source: Source, indices: Sequence[int], file: Path) -> None:
    """Pictures with their captions; those that are damaged are left out."""
    from imagen_jax.data.images import crop, decode
    from imagen_jax.io import image_grid
    from imagen_jax.io.errors import CorruptDataError

    pictures, captions = [], []
    for index in indices:
        try:
            example = source[index]
            header = decode.read_header(example["image"])
            side = min(header.width, header.height, SIDE)
            window = {"framing": config.Framing(), "rng": np.random.default_rng(0)}
            pictures.append(crop.frame_image(example["image"], side, **window))
        except (CorruptDataError, decode.UnreadableImageError):
            continue
        captions.append(example["caption"][:CAPTION])
    if pictures:
        columns = min(COLUMNS, len(pictures))
        image_grid.draw_grid(pictures, captions, side=SIDE, columns=columns).save(file)
