"""Check of a launch before it costs anything: the workers reach what they read, and it matches."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from etils import epath

from imagen_jax import config
from imagen_jax.cli import launch_commands, train
from imagen_jax.cli.launch_commands import Command
from imagen_jax.cloud import gcloud
from imagen_jax.cloud.gcloud import Gcloud, GcloudError, MissingResourceError
from imagen_jax.io import json_reader
from imagen_jax.io.buckets import is_bucket

OUT = "give --out gs://BUCKET/PAIRS"
BOTH = f"{OUT} and `-- --pairs gs://BUCKET/PAIRS`"
EXAMPLE = "`imagen launch tpu ... -- --pairs gs://my-bucket/pairs`"


class Launch(NamedTuple):
    """A launch as far as its inputs go."""

    main: Command
    before: tuple[Command, ...]  # in order
    hosts: int
    cloud: Gcloud

    @property
    def name(self) -> str:
        """The config that is trained, as it is given."""
        return self.main.words[2]

    @property
    def trusted(self) -> bool:
        """True where a command of the user's own may bring what is not seen from here."""
        return launch_commands.have_own(self.before)


def check_inputs(launch: Launch) -> list[str]:
    """Sentences about what the workers read; for the user.

    Errors: ValueError for what no worker reaches or does not match, with the remedy; GcloudError
    where the bucket does not answer, unless gcloud is only printed.
    """
    for command in (*launch.before, launch.main):
        if command.encodes:
            _check_encoding(command, launch)
    if launch.main.words[:2] != ("imagen", "train"):
        return []
    stages = resolve_stages(launch.main)
    workdir = launch.main.value("--workdir") or ""
    if not is_bucket(workdir):
        raise ValueError(
            f"--workdir {workdir} is on machines that are deleted: leave it out, and the launch's "
            "own is taken"
        )
    _check_weights(launch)
    pairs = launch.main.value("--pairs")
    if pairs is None:
        return _check_config_pairs(stages, launch)
    return [_check_pairs(pairs, stages, launch)]


def resolve_stages(main: Command) -> list[config.Experiment]:
    """The stages that a command `imagen train` trains, with its overrides.

    Errors: as `train.parse`. Pairs are left out of it: their place is on the workers.
    """
    words = [w.replace("{worker}", "0").replace("{workers}", "1") for w in main.words[2:]]
    pairs = main.value("--pairs")
    if pairs is not None:
        words = [word for word in words if word not in ("--pairs", f"--pairs={pairs}", pairs)]
    _, stages, _ = train.parse(words)
    return stages


def _check_encoding(command: Command, launch: Launch) -> None:
    """Errors: ValueError where pairs, source or encoder are on one machine alone."""
    out = command.value("--out")
    if launch.trusted:
        return
    if command is launch.main and not is_bucket(out):
        raise ValueError(f"{command}: its pairs are on machines that are deleted at the end: {OUT}")
    if out is None:
        _check_config_encoding(command, launch)
        return
    if not is_bucket(out) and launch.hosts > 1:
        keeper = "worker 0" if command.once else f"each of the {launch.hosts}"
        share = "the pairs" if command.once else "its share of the pairs"
        raise ValueError(
            f"{command}: --out {out} is a folder of each machine, and {keeper} would keep {share} "
            f"to itself: {BOTH}"
        )
    _check_source(command, launch)
    _check_encoder(launch_commands.read_text(command).encoder, str(command))


def _check_config_encoding(command: Command, launch: Launch) -> None:
    for experiment in config.load(command.source):
        _check_encoder(experiment.text.encoder, str(command))
        shared = command.once or not launch_commands.is_small(experiment)
        if launch.hosts > 1 and shared:
            raise ValueError(
                f"{command}: the {launch.hosts} machines would not see each other's pairs: encode "
                f"the source of {experiment.data.dataset}, and {BOTH}"
            )


def _check_source(command: Command, launch: Launch) -> None:
    from imagen_jax.data.sources import addresses

    dataset = addresses.parse_address(command.source).dataset
    if dataset.startswith(launch_commands.EMBEDDED_DATASETS):
        _check_drawn(dataset, command.data_dir, launch)
    elif dataset.startswith(addresses.TFDS):
        place = command.data_dir
        if not is_bucket(place):
            raise ValueError(f"{command}: no worker has {dataset} in {place}: {_bring('it')}")
    elif not is_bucket(dataset.partition(":")[2]):
        raise ValueError(f"{command}: {dataset} is on no worker: {_bring('it')}")


def _check_drawn(dataset: str, data_dir: str, launch: Launch) -> None:
    from imagen_jax.cli.data_build import full_name

    seen = [c for c in launch.before if launch.hosts == 1 or not c.once]
    drawn = {(full_name(c.source), c.data_dir) for c in seen if c.draws}
    if (dataset, data_dir) not in drawn:
        where = "" if data_dir == "data" else f" --data-dir {data_dir}"
        raise ValueError(
            f"no worker has {dataset} in {data_dir}: give --before 'imagen data build "
            f"{dataset}{where}' before what encodes it"
        )


def _check_encoder(encoder: str, where: str) -> None:
    if encoder not in launch_commands.EMBEDDED_ENCODERS and not is_bucket(encoder):
        raise ValueError(
            f"{where}: text encoder {encoder!r} is neither in the package nor in a bucket, so no "
            f"worker has it: copy it to a bucket and give --encoder gs://BUCKET/ENCODER --out "
            "gs://BUCKET/PAIRS"
        )


def _check_weights(launch: Launch) -> None:
    from imagen_jax import pretrained

    place = launch.main.value("--init-from")
    if place is None or is_bucket(place) or launch.trusted:
        return
    if place.partition("/")[0] not in pretrained.list_names():
        raise ValueError(f"--init-from {place} is on no worker: {_bring('it')}")


def _bring(what: str) -> str:
    return f"copy {what} to a bucket, or mount {what} with a --before of your own"


def _check_config_pairs(stages: Sequence[config.Experiment], launch: Launch) -> list[str]:
    """Check the pairs that each machine makes of the datasets of the config."""
    data_dir = launch.main.data_dir
    made = {
        (e.data.dataset, e.data.split, Path(e.text.encoder).name): command
        for command in launch.before
        if command.encodes and command.value("--out") is None and command.data_dir == data_dir
        for e in config.load(command.source)
    }
    found: dict[str, None] = {}
    for stage in stages:
        key = (stage.data.dataset, stage.data.split, Path(stage.text.encoder).name)
        if key in made:
            _check_made(made[key], stage)
            _check_drawn_for(stage, launch)
            found[f"{key[0]}: each machine makes its own ({made[key]})"] = None
        elif launch.trusted:
            found[_bring_by(data_dir, launch)] = None
        else:
            raise ValueError(_nothing(stage, launch.name))
    return list(found)


def _check_drawn_for(stage: config.Experiment, launch: Launch) -> None:
    dataset = stage.data.dataset
    if dataset.startswith(launch_commands.EMBEDDED_DATASETS) and not launch.trusted:
        _check_drawn(dataset, launch.main.data_dir, launch)


def _nothing(stage: config.Experiment, name: str) -> str:
    dataset, encoder = stage.data.dataset, stage.text.encoder
    if launch_commands.is_small(stage):
        return (
            f"{name} has no pairs to train on: no worker has {dataset} encoded by {encoder}; give "
            f"--before 'imagen data build {dataset}' 'imagen encode {name}', or name pairs in a "
            f"bucket at the end: {EXAMPLE}"
        )
    return (
        f"{name} has no pairs to train on: encode your images to a bucket (imagen encode SOURCE "
        f"--for {name} --out gs://my-bucket/pairs), then name them at the end: {EXAMPLE}"
    )


def _check_pairs(pairs: str, stages: Sequence[config.Experiment], launch: Launch) -> str:
    """Check the pairs of --pairs: those that are there, or those that a command is to write."""
    writer = next((c for c in launch.before if c.encodes and c.value("--out") == pairs), None)
    if writer is not None:
        for stage in stages:
            _check_made(writer, stage)
    if not is_bucket(pairs):
        return _check_local_pairs(pairs, writer, launch)
    try:
        index = f"{pairs.rstrip('/')}/store.json"
        text = Gcloud().run(gcloud.cat(index, first=json_reader.MAX_BYTES + 1))
    except MissingResourceError as error:
        if writer is None:
            raise ValueError(
                f"{pairs} has no store.json: encode to it first (imagen encode SOURCE --for "
                f"{launch.name} --out {pairs}), here or with --before, or give it again once that "
                "has ended"
            ) from error
        return _written_by(pairs, writer)
    except GcloudError as error:
        if not launch.cloud.dry:
            raise
        if writer is not None:
            return f"{_written_by(pairs, writer)}; what is there now is not known ({error})"
        return f"{pairs}: NOT LOOKED AT ({error})"
    return _check_store(text, pairs, stages, launch.name)


def _check_local_pairs(pairs: str, writer: Command | None, launch: Launch) -> str:
    if writer is None and not launch.trusted:
        raise ValueError(
            f"--pairs {pairs} is a folder that no worker sees: give one in a bucket "
            "(gs://BUCKET/PAIRS), or mount it with a --before of your own"
        )
    return _bring_by(pairs, launch) if writer is None else _written_by(pairs, writer)


def _written_by(pairs: str, writer: Command) -> str:
    return f"{pairs}: {writer.option} writes it"


def _bring_by(place: str, launch: Launch) -> str:
    """The line about what the user's own commands bring, which cannot be seen from here."""
    own = ", then ".join(str(command) for command in launch.before if not command.is_imagen)
    return f"{place}: {own} has to bring it"


def _check_made(command: Command, experiment: config.Experiment) -> None:
    """Errors: ValueError where a command writes pairs on which an experiment can't train."""
    stage, text = experiment.stage, experiment.text
    names = ["encoder", "max_length", "clean", "clean_caption"]
    if command.value("--out") is None:
        group = [
            e for e in config.load(command.source) if e.data.dataset == experiment.data.dataset
        ]
        made, sizes = group[0].text, sorted(e.stage.size for e in group)
        names.append("width")
    else:
        made, sizes = launch_commands.read_text(command), launch_commands.read_sizes(command)
    for name in names:
        found, wanted = getattr(made, name), getattr(text, name)
        if name == "encoder":
            found, wanted = Path(found).name, Path(wanted).name
        if found != wanted:
            raise ValueError(
                f"{command} stores pairs of {name} {found!r}, but text.{name}={wanted!r}: give "
                "both the same"
            )
    if stage.size not in sizes:
        raise ValueError(
            f"{command} stores images of sides {sizes}, but stage {stage.name} trains on "
            f"{stage.size}: store that size, too"
        )


def _check_store(text: str, pairs: str, stages: Sequence[config.Experiment], name: str) -> str:
    """Compare a store's index with what the stages ask. Errors: ValueError."""
    from imagen_jax.data.store import fit, index, store

    folder = epath.Path(pairs)
    found = store.Store(folder=folder, **index.parse(text, folder / index.INDEX))
    source = shlex.quote(store.join_split(found.dataset, found.split))
    command = f"imagen encode {source} --for {name} --out {pairs}"
    for experiment in stages:
        if misfit := fit.describe_misfit(found, experiment, command):
            raise ValueError(f"{pairs} {misfit}")
    sides = ", ".join(map(str, found.sizes))
    return f"{pairs}: {found.count:,} pairs of sides {sides}, as the config asks"
