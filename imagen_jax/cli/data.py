"""`imagen data build|show|check`: make an embedded dataset, look at it, check any source."""

import dataclasses
from pathlib import Path

import tyro

from imagen_jax.cli import checking

USAGE = """Build an embedded dataset (nothing is downloaded), show a contact sheet of it, or check
any source of captioned pictures.
"""


@dataclasses.dataclass(frozen=True)
class Build:
    """Draw the pictures and write them as a TFDS dataset in ArrayRecord files."""

    dataset: tyro.conf.Positional[str]
    """shapes/full; shapes/quickstart: fewer pictures with larger, simpler objects; or emoji."""
    data_dir: Path = Path("data")
    """Where datasets live."""
    workers: int | None = None
    """Processes that draw shapes; default: one per core."""
    font: Path | None = None
    """The font that emoji are taken from, with bitmaps in a table CBDT; default: Noto Color Emoji
    of the Debian package fonts-noto-color-emoji."""


@dataclasses.dataclass(frozen=True)
class Show:
    """Write a contact sheet of a dataset's first pictures with their captions."""

    dataset: tyro.conf.Positional[str]
    """A dataset that was built."""
    data_dir: Path = Path("data")
    """Where datasets live."""
    split: str = "train"
    """train, validation or held_out."""
    count: int = 24
    """How many pictures."""
    out: Path = Path("contact_sheet.png")
    """File to write."""


def run(argv: list[str]) -> None:
    """Parse and do."""
    options = tyro.extras.subcommand_cli_from_dict(
        {"build": Build, "show": Show, "check": checking.Check},
        args=argv,
        prog="imagen data",
        description=USAGE,
    )
    if isinstance(options, Build):
        _build(options)
    elif isinstance(options, checking.Check):
        checking.run(options)
    else:
        _show(options)


def full_name(dataset: str) -> str:
    """`shapes/full` for `shapes`. Errors: ValueError for a dataset that is not ours."""
    family, _, name = dataset.partition("/")
    if family not in ("shapes", "emoji"):
        raise ValueError(
            f"no dataset {dataset!r}; there are shapes/full, shapes/quickstart and emoji"
        )
    return f"{family}/{name or 'full'}"


def _build(options: Build) -> None:
    name = full_name(options.dataset)
    if name.startswith("emoji/"):
        from imagen_jax.data import emoji

        if options.workers is not None:
            raise ValueError(f"--workers {options.workers}: one process draws emoji; leave it out")
        built = emoji.build(name, str(options.data_dir), font=options.font)
    else:
        from imagen_jax.data import shapes

        if options.font is not None:
            raise ValueError(f"--font {options.font}: {name} is drawn without; leave it out")
        built = shapes.build(name, str(options.data_dir), workers=options.workers)
    splits = ", ".join(f"{split.num_examples:,} {n}" for n, split in built.info.splits.items())
    print(f"{name} is in {options.data_dir}: {splits}")


def _show(options: Show) -> None:
    import io

    import numpy as np
    from PIL import Image

    from imagen_jax import gallery
    from imagen_jax.data import sources

    source = sources.built(full_name(options.dataset), options.split, str(options.data_dir))
    examples = [source[i] for i in range(min(options.count, len(source)))]
    pictures = [np.asarray(Image.open(io.BytesIO(e["image"])).convert("RGB")) for e in examples]
    gallery.grid(pictures, [e["caption"] for e in examples], side=160).save(options.out)
    print(f"contact sheet of {len(examples)} pictures in {options.out}")
