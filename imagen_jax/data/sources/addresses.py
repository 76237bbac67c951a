"""Addresses of captioned images: each leads to a source, examples by index."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from imagen_jax import extras, limits
from imagen_jax.config.digits import parse_real
from imagen_jax.config.sentences import shorten
from imagen_jax.data.sources import bare_paths, base
from imagen_jax.data.sources.base import Address, Source
from imagen_jax.io import buckets, paths, whole_files

FAMILIES = ("shapes/", "emoji/")  # of the embedded datasets' names
TFDS, MIXTURE = "tfds:", "mixture:"
TARS, FOLDER, PARQUET = bare_paths.TARS, bare_paths.FOLDER, bare_paths.PARQUET
PATHS = (TARS, FOLDER, PARQUET, MIXTURE)
FORMS = (
    "shapes/NAME[?split=S], emoji[?split=S], emoji/styles[?split=S],"
    " tfds:NAME[?split=S&image=FEATURE&text=FEATURE&module=MODULE],"
    " tars:PATH[?text=FIELD], folder:PATH[?text=COLUMN],"
    " parquet:PATH[?image=COLUMN&text=COLUMN],"
    " or mixture:FILE with such addresses in its lines, each with weight=W if not 1; PATH is a"
    " file, a folder, or has * or {000..099} (tars, parquet), and may begin with gs://; or a"
    " folder, .tar, .parquet or metadata.jsonl that is there, by its path alone"
)
OPTIONS = {
    **{family: {"split"} for family in FAMILIES},
    TFDS: {"split", "image", "text", "module"},
    TARS: {"text"},
    FOLDER: {"text"},
    PARQUET: {"image", "text"},
    MIXTURE: set[str](),
}
TEXT = {
    **dict.fromkeys(FAMILIES, "caption"),
    TFDS: "caption",
    PARQUET: "text",
}  # where the texts are, if not named
LONGEST = 8192  # characters of an address
INDICES = "indices"  # subfolder of the folder of datasets, for those of tars


def parse_address(text: str) -> Address:
    """A source's address, or the path of one that is there.

    Errors: ValueError that shows the forms there are.
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"data source {shorten(text)} has more than {LONGEST:,} characters, as no path has: "
            "give a folder or a pattern"
        )
    known = text.startswith(tuple(OPTIONS)) or text.partition("?")[0] == "emoji"
    dataset, query = _split(text if known else bare_paths.add_form(text))
    dataset = "emoji/full" if dataset == "emoji" else dataset  # the first of its family
    form = next((f for f in OPTIONS if dataset.startswith(f) and dataset != f), None)
    if form is None:
        raise ValueError(f"no data source {shorten(text)}: {_describe_unknown(text)}")
    pairs = parse_qsl(query, keep_blank_values=True)
    given: dict[str, Any] = dict(pairs)
    if len(given) < len(pairs):
        raise ValueError(f"data source {shorten(text)}: an option is given twice: give it once")
    if unknown := sorted(set(given) - OPTIONS[form] - {"weight"}):
        raise ValueError(
            f"data source {shorten(text)}: unknown {shorten(unknown[0])}; give {FORMS}"
        )
    if "weight" in given:
        given["weight"] = _weight(given["weight"], f"data source {shorten(text)}")
    return Address(dataset, **{"text": TEXT.get(form, "")} | given)


def _weight(text: str, where: str) -> float:
    try:
        weight = parse_real(text)
    except ValueError as error:
        raise ValueError(f"{where}: weight={error}") from error
    if not 0 < weight < math.inf:
        raise ValueError(f"{where}: weight {weight} of a source must be positive and finite")
    return weight


def _describe_unknown(text: str) -> str:
    """Say why a text is no address, and what to give."""
    if buckets.is_bucket(text):
        return f"say what is in the bucket: {TARS}{text}, {FOLDER}{text} or {PARQUET}{text}"
    if ":" in text or os.path.exists(os.path.expanduser(text)) or text.startswith(FAMILIES):
        return f"give {FORMS}"
    return (
        "no file or folder here has that name; give a folder of images, a .tar, .parquet or "
        f"metadata.jsonl that is there, or an address such as {TARS}PATH (`imagen encode --help` "
        "lists them)"
    )


def parse_dataset(dataset: str, split: str) -> Address:
    """The address that a config's `data.dataset` and `data.split` say.

    Errors: as `parse_address`; ValueError for a split in the dataset's own address, and for a
    module, which only the command line allows.
    """
    address = parse_address(dataset)
    _refuse_module(address, f"data.dataset={dataset!r}")
    if address.split not in ("train", split):
        raise ValueError(
            f"data.dataset={dataset!r} names split {address.split!r}, but data.split={split!r}: "
            "leave it out of data.dataset and give data.split"
        )
    return address._replace(split=split)


def _refuse_module(address: Address, where: str) -> None:
    """Errors: ValueError where a file, which others may have written, allows a module to run."""
    if address.module:
        raise ValueError(
            f"{where} allows the module {address.module!r} of {address.dataset} to run, which only "
            "an address on the command line may: leave module= out, and encode that source itself"
        )


def _split(text: str) -> tuple[str, str]:
    """An address and what follows its `?`, which may be in the name of a path that is there."""
    form = next((f for f in PATHS if text.startswith(f)), None)
    there = 0  # how much of the text is a path that is there
    if form is not None:
        ends = [found.start() for found in re.finditer(r"[/?]|$", text)]
        paths = {end: os.path.expanduser(text[len(form) : end]) for end in ends}
        there = max((end for end, path in paths.items() if os.path.exists(path)), default=0)
    query = text.find("?", there)
    return (text, "") if query < 0 else (text[:query], text[query + 1 :])


def open_source(address: Address, data_dir: Path | str) -> Source:
    """The examples at an address.

    Errors: FileNotFoundError for a dataset that is not there, under `data_dir` or at its path;
    ValueError for one of no form that there is, without that split or those features, without any
    example, or in files that need what is not installed.
    """
    form = next((form for form in OPTIONS if address.dataset.startswith(form)), "")
    place = address.dataset.removeprefix(form)
    # Each is imported where it is needed: some are slow, and none needs the others.
    if form in FAMILIES:
        return open_embedded(address.dataset, address.split, data_dir)
    if form == TARS:
        from imagen_jax.data.sources import tars

        return tars.open_tars(place, field=address.text, cache=Path(data_dir) / INDICES)
    if form == FOLDER:
        from imagen_jax.data.sources import folders

        return folders.open_folder(place, column=address.text)
    if form == PARQUET:
        from imagen_jax.data.sources import parquet

        if not address.text:
            raise ValueError(f"{address.dataset}?text=: captions are needed; name their column")
        return parquet.open_parquet(place, image=address.image, text=address.text)
    if form == MIXTURE:
        return open_mixture(read_addresses(place), data_dir)
    if form == TFDS:
        from imagen_jax.data.sources import tfds

        return tfds.open_tfds(address, data_dir)
    raise ValueError(f"no data source {address.dataset!r}: give {FORMS}")


def place_of(address: Address, form: str) -> str:
    """The path of an address of that form; "" for one of another."""
    return address.dataset.removeprefix(form) if address.dataset.startswith(form) else ""


def open_mixture(addresses: Sequence[Address], data_dir: Path | str) -> Source:
    """Several sources as one, by their weights; a single one as it is.

    Errors: as `open_source`; ValueError for weights that cannot be mixed.
    """
    from imagen_jax.data.sources.mixture import Mixture

    limits.MIXTURE_SOURCES.check(len(addresses), "the mixture has")
    places = [address._replace(weight=1.0) for address in addresses]
    opened = {place: open_source(place, data_dir) for place in dict.fromkeys(places)}
    sources = tuple(opened[place] for place in places)
    if len(sources) == 1:
        return sources[0]
    return Mixture(sources, tuple(address.weight for address in addresses))


def read_addresses(file: str) -> list[Address]:
    """The addresses in a file, one a line; lines that are blank or begin with # are left out.

    Errors: FileNotFoundError for no file; ValueError for one without addresses, with a mixture, or
    that allows a module to run.
    """
    path = paths.local_path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no file {file} of a mixture: write addresses of sources into it")
    lines = [line.strip() for line in base.decode_text(whole_files.read_whole(path)).splitlines()]
    given = [line for line in lines if line and not line.startswith("#")]
    limits.MIXTURE_SOURCES.check(len(given), f"mixture {file} has")
    addresses = [parse_address(line) for line in given]
    for address in addresses:
        _refuse_module(address, f"mixture {file}")
    if not addresses:
        raise ValueError(f"mixture {file} has no sources: give {FORMS}, one a line")
    if nested := [a.dataset for a in addresses if a.dataset.startswith(MIXTURE)]:
        raise ValueError(
            f"mixture {file} has {nested[0]} in it: put that one's lines there instead"
        )
    return addresses


def open_embedded(dataset: str, split: str, data_dir: Path | str) -> Source:
    """A split of an embedded dataset. Errors: as `tfds_builder.open_built`."""
    if dataset.startswith("emoji/"):  # slow to import, and nothing else here needs them
        extras.require("emoji", f"{dataset}: emoji have names, which need")
        from imagen_jax.data.synthetic.emoji import dataset as emoji
        from imagen_jax.data.synthetic.emoji import styles_dataset

        if dataset == styles_dataset.NAME:
            return styles_dataset.open_styles(split, data_dir)
        return emoji.open_dataset(dataset, split, data_dir)
    from imagen_jax.data.synthetic.shapes import dataset as shapes

    return shapes.open_dataset(dataset, split, data_dir)
