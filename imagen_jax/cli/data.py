"""`imagen data build|show`: make an embedded dataset, or look at it."""

import dataclasses
from pathlib import Path

import tyro

USAGE = """Build the embedded dataset (nothing is downloaded), or show a contact sheet of it."""


@dataclasses.dataclass(frozen=True)
class Build:
    """Draw the pictures and write them as a TFDS dataset in ArrayRecord files."""

    dataset: tyro.conf.Positional[str]
    """shapes/full, or shapes/quickstart: fewer pictures with larger, simpler objects."""
    data_dir: Path = Path("data")
    """Where datasets live."""
    workers: int | None = None
    """Processes that draw; default: one per core."""


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
        {"build": Build, "show": Show}, args=argv, prog="imagen data", description=USAGE
    )
    if isinstance(options, Build):
        _build(options)
    else:
        _show(options)


def name_of(dataset: str) -> str:
    """`full` for `shapes/full`. Errors: ValueError for a dataset that is not ours."""
    family, _, name = dataset.partition("/")
    if family != "shapes":
        raise ValueError(f"no dataset {dataset!r}; there are shapes/full and shapes/quickstart")
    return name or "full"


def _build(options: Build) -> None:
    from imagen_jax.data import shapes

    shapes.build(name_of(options.dataset), str(options.data_dir), workers=options.workers)
    print(f"{options.dataset} is in {options.data_dir}")


def _show(options: Show) -> None:
    import io

    import numpy as np
    from PIL import Image

    from imagen_jax import gallery
    from imagen_jax.data import shapes

    source = shapes.source(name_of(options.dataset), options.split, str(options.data_dir))
    examples = [source[i] for i in range(min(options.count, len(source)))]
    pictures = [np.asarray(Image.open(io.BytesIO(e["image"])).convert("RGB")) for e in examples]
    gallery.grid(pictures, [e["caption"] for e in examples], side=160).save(options.out)
    print(f"contact sheet of {len(examples)} pictures in {options.out}")
