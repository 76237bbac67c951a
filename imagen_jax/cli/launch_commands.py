"""The commands of `imagen launch tpu` as words, and what they say about pairs of data."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from imagen_jax import config
from imagen_jax.cli.store_options import MAX_LENGTH
from imagen_jax.config.digits import parse_whole

ONCE = "--before-once"
EMBEDDED_ENCODERS = ("t5_1_1_tiny", "t5_1_1_mini")
EMBEDDED_DATASETS = ("shapes/", "emoji/")


@dataclass(frozen=True)
class Command:
    """A command that every worker runs."""

    option: str  # of the launcher, that gave it
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.option} {shlex.join(self.words)!r}"

    @property
    def once(self) -> bool:
        """True for a command that worker 0 alone runs."""
        return self.option == ONCE

    @property
    def is_imagen(self) -> bool:
        """True for a command of this package, and not the user's own."""
        return self.words[0] == "imagen"

    @property
    def draws(self) -> bool:
        """True for a command that builds a dataset of the package."""
        return self.words[:3] == ("imagen", "data", "build") and self.value("--out") is None

    @property
    def encodes(self) -> bool:
        """True for a command that writes pairs."""
        built = self.words[:3] == ("imagen", "data", "build") and self.value("--out") is not None
        return built or self.words[:2] == ("imagen", "encode")

    @property
    def source(self) -> str:
        """The dataset, source or config that it draws or encodes; "" where none is given first."""
        rest = self.words[3 if self.words[1] == "data" else 2 :]
        return rest[0] if rest and not rest[0].startswith("-") else ""

    @property
    def data_dir(self) -> str:
        """Folder of datasets."""
        return self.value("--data-dir") or "data"

    def value(self, name: str) -> str | None:
        """Find the value of an option; the last one counts."""
        found = self.values(name)
        return found[0] if found else None

    def values(self, name: str) -> tuple[str, ...]:
        """Find the values of an option that takes several; the last one counts."""
        found: tuple[str, ...] = ()
        for n, word in enumerate(self.words):
            key, equals, inside = word.partition("=")
            if key.replace("_", "-") != name:
                continue
            rest = self.words[n + 1 :]
            end = next((i for i, w in enumerate(rest) if w.startswith("-")), len(rest))
            found = (inside,) if equals else rest[:end]
        return found


def parse_command(option: str, command: str) -> Command:
    """Split a command as a shell would, but for what a shell would evaluate.

    Errors: ValueError for no command, one of `imagen` that there is not, or an open quotation.
    """
    from imagen_jax.cli import COMMANDS

    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise ValueError(f"{option} {command!r}: {error}") from error
    known = words[:1] != ("imagen",) or (
        len(words) > 1 and words[1] in COMMANDS and words[1] != "launch"
    )
    if not words or not known:
        raise ValueError(f'{option} {command!r}: give a command such as "imagen encode ..."')
    return Command(option, words)


def encode_alone(command: Command) -> Command:
    """Let a machine encode all of a dataset for itself, where nothing says otherwise.

    Worker 0 does so with --before-once, and each with a small dataset: those of the package with
    its encoders, which a CPU encodes in minutes; machines that shared the work would each keep a
    part. Errors: as `config.load`.
    """
    encodes = command.words[:2] == ("imagen", "encode") and command.value("--processes") is None
    alone = encodes and (
        command.once
        or (
            command.value("--out") is None and all(is_small(e) for e in config.load(command.source))
        )
    )
    return replace(command, words=(*command.words, "--processes", "1")) if alone else command


def read_text(command: Command) -> config.Text:
    """The text settings of the pairs of a command with --out: its options, or those of --for.

    The width is not looked for: the encoder's own files say it. Errors: as `config.load`.
    """
    stages = _stages(command)
    text = stages[0].text if stages else config.Text(encoder="", max_length=MAX_LENGTH)
    text = replace(text, encoder=command.value("--encoder") or text.encoder)
    if (length := command.value("--max-length")) is not None:
        text = replace(text, max_length=parse_whole(length))
    if "--clean-caption" in command.words:
        text = replace(text, clean_caption=True)
    return replace(text, clean=True) if "--clean" in command.words else text


def read_sizes(command: Command) -> list[int]:
    """The sides, in pixels, of the images of a command with --out. Errors: as `config.load`."""
    given = command.values("--sizes")
    return [parse_whole(s) for s in given] or sorted({e.stage.size for e in _stages(command)})


def _stages(command: Command) -> Sequence[config.Experiment]:
    name = command.value("--for")
    return config.load(name) if name is not None else ()


def is_small(experiment: config.Experiment) -> bool:
    """Tell whether dataset and encoder are of the package."""
    small_text = experiment.text.encoder in EMBEDDED_ENCODERS
    return small_text and experiment.data.dataset.startswith(EMBEDDED_DATASETS)


def have_own(commands: Sequence[Command]) -> bool:
    """Tell whether a command is the user's own and may mount or copy what is looked for."""
    return any(not command.is_imagen for command in commands)
