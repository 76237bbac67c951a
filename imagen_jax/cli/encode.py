"""`imagen encode CONFIG`: encode a dataset's captions once, into (image, encoding) pairs."""

import dataclasses
from pathlib import Path

import tyro

from imagen_jax import config

USAGE = """Encode the captions of the dataset that CONFIG names, once, with its frozen text encoder.

Training reads the pairs and never runs the encoder. Pictures are kept at the sizes that the
config's stages need. What is already there is not done again.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to encode."""

    config: tyro.conf.Positional[str]
    """A config file, or a folder of them (a cascade)."""
    data_dir: Path = Path("data")
    """Folder that `imagen data build` wrote to; the pairs go to its subfolder `encoded`."""


def run(argv: list[str]) -> None:
    """Parse, then encode every (dataset, split) that the config's stages train on."""
    options = tyro.cli(Options, args=argv, prog="imagen encode", description=USAGE)
    experiments = config.load(options.config)
    sizes = tuple(sorted({e.stage.size for e in experiments}))
    for dataset, split in sorted({(e.data.dataset, e.data.split) for e in experiments}):
        _encode(dataset, split, experiments[0].text, sizes, options.data_dir)


def _encode(
    dataset: str, split: str, text: config.Text, sizes: tuple[int, ...], data_dir: Path
) -> None:
    from imagen_jax.data import shapes
    from imagen_jax.text import cache
    from imagen_jax.text.encoder import TextEncoder

    encoder = TextEncoder.load(text.encoder, max_length=text.max_length)
    out = cache.path(data_dir, dataset, split, text.encoder)
    source = shapes.source(dataset.removeprefix("shapes/"), split, str(data_dir))
    store = cache.write(source, encoder, out=out, dataset=dataset, split=split, sizes=sizes)
    print(f"{store.count} (image, encoding) pairs of {dataset} ({split}) in {out}")


def find_store(experiment: config.Experiment, data_dir: Path):
    """The pairs that `experiment` trains on. Errors: FileNotFoundError, ValueError; see records."""
    from imagen_jax.data import records
    from imagen_jax.text import cache

    data, text = experiment.data, experiment.text
    return records.open(cache.path(data_dir, data.dataset, data.split, text.encoder))
