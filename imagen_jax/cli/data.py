"""`imagen data build|show|check`: make a dataset, look at one, check any source."""

import dataclasses
from pathlib import Path

import tyro

from imagen_jax import config
from imagen_jax.cli import data_build, data_check, parsing

USAGE = """Build an embedded dataset (nothing is downloaded) or prepare any source of captioned
images for training, show a contact sheet of an embedded dataset, or check any source.
"""


@dataclasses.dataclass(frozen=True)
class ShowOptions:
    """Write a contact sheet of a dataset's first images with their captions."""

    dataset: tyro.conf.Positional[str]
    """Embedded dataset that was built, such as shapes/full."""
    data_dir: Path = Path("data")
    """Folder of datasets."""
    split: str = "train"
    """Split: train, validation or held_out."""
    count: config.Images = 24
    """Number of images."""
    out: Path = Path("contact_sheet.png")
    """File to write."""


def run(argv: list[str]) -> None:
    """Parse and do; what comes after `--` are options of Beam's."""
    end = argv.index("--") if "--" in argv else len(argv)
    options = tyro.extras.subcommand_cli_from_dict(
        {"build": data_build.BuildOptions, "show": ShowOptions, "check": data_check.CheckOptions},
        args=argv[:end],
        prog="imagen data",
        description=USAGE,
        registry=parsing.NUMBERS,
    )
    options = parsing.expand_paths(options)
    if isinstance(options, data_build.BuildOptions):
        data_build.run(options, argv[end + 1 :])
    elif end < len(argv):
        raise ValueError("only `imagen data build --beam` takes options after --")
    elif isinstance(options, data_check.CheckOptions):
        data_check.run(options)
    else:
        _show(options)


def _show(options: ShowOptions) -> None:
    config.check_options(options)
    from imagen_jax.data.images import decode
    from imagen_jax.data.sources import addresses
    from imagen_jax.io import image_grid

    source = addresses.open_embedded(
        data_build.full_name(options.dataset), options.split, str(options.data_dir)
    )
    examples = [source[i] for i in range(min(options.count, len(source)))]
    images = [decode.decode_image(e["image"]) for e in examples]
    sheet = image_grid.draw_grid(images, [e["caption"] for e in examples], side=160)
    image_grid.save_image(sheet, options.out)
    print(f"contact sheet of {len(examples)} images in {options.out}")
