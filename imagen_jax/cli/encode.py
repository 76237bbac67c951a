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
    by_pair: dict[tuple[str, str], list[config.Experiment]] = {}
    for experiment in experiments:
        data = experiment.data
        by_pair.setdefault((data.dataset, data.split), []).append(experiment)
    for group in by_pair.values():
        _encode(group, options.data_dir)


def _encode(group: list[config.Experiment], data_dir: Path) -> None:
    """One dataset's split, at the sizes of every stage that trains on it."""
    from imagen_jax.text import cache

    data, text = group[0].data, group[0].text
    sizes = [e.stage.size for e in group]
    store = cache.encode(data, text, data_dir=data_dir, sizes=sizes)
    print(
        f"{store.count} (image, encoding) pairs of {data.dataset} ({data.split}) in {store.folder}"
    )


def find_store(experiment: config.Experiment, data_dir: Path):
    """The pairs that `experiment` trains on. Errors: FileNotFoundError, ValueError; see records."""
    from imagen_jax.data import records
    from imagen_jax.text import cache

    data, text = experiment.data, experiment.text
    folder = cache.path(data_dir, dataset=data.dataset, split=data.split, encoder=text.encoder)
    return records.open(folder)
