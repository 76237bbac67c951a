"""`imagen finetune IMAGES --cascade C --prompt P --out DIR`: teach a cascade one subject."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from imagen_jax import config
from imagen_jax.cli import devices, parsing
from imagen_jax.io import atomic

if TYPE_CHECKING:
    from imagen_jax.finetune import Choices, SubjectDataset
    from imagen_jax.imagen import Imagen

USAGE = """Teach a trained cascade one subject from a few images of it (DreamBooth).

The prompt has a word that the cascade does not know, "a sks crescent", and the class, "a
crescent", keeps what it knows: the cascade samples images of it, which are half of every batch.
Steps, rates and the rest are chosen from the number of images, and told. Give the same command
again to resume.
"""
SAMPLED = 16  # images of the class at once
DATA, PAIRS = "data", "pairs"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `imagen finetune`."""

    images: tyro.conf.Positional[Path]
    """Folder of the subject's images, or one image."""
    cascade: str
    """Folder of a run, of the runs of a cascade or of an exported one, or the name of an embedded
    cascade."""
    prompt: str
    """Caption of the subject, with a new word in it, such as "a sks crescent"."""
    out: Path
    """Folder for the dataset, the pairs and a run of each stage."""
    class_prompts: Annotated[tuple[str, ...], tyro.conf.arg(name="class")] = ()
    """Captions of the class, without the new word, of which the cascade samples images in turn;
    none: no images of a class."""
    stages: tuple[str, ...] = ()
    """Stages to fine-tune; by default all."""
    lora_rank: Annotated[int, config.Range(low=0, high=2**12)] = 8
    """Rank of adapters; 0 trains all weights."""
    steps: Annotated[int, config.Range(low=0, high=10**7)] = 0
    """Training steps of each stage; 0 chooses."""
    learning_rate: Annotated[float, config.Range(low=0)] = 0.0
    """Learning rate; 0 chooses."""
    class_images: Annotated[int, config.Range(low=0, high=10**6)] = 0
    """Images of the class to sample; 0 chooses."""
    seed: config.Seed = 0
    """Random seed of the class's images and of training."""


def run(argv: list[str]) -> None:
    """Parse, make the dataset, encode it, train the stages."""
    options = parsing.parse(Options, argv, prog="imagen finetune", description=USAGE)
    import imagen_jax
    from imagen_jax import finetune
    from imagen_jax.finetune import subject
    from imagen_jax.parallel import compilation_cache

    compilation_cache.use_cache()
    found = subject.find_images(options.images)
    dataset = finetune.SubjectDataset(options.out / DATA, options.prompt, options.class_prompts)
    cascade = imagen_jax.load(options.cascade, offload=True)
    chosen = _select(options, cascade)
    devices.report_devices()
    choices = _choose(options, chosen, len(found))
    print(f"{len(found)} images of the subject: {choices[0].describe()}", flush=True)
    pairs = options.out / "-".join((PAIRS, *(str(e.stage.size) for e in chosen)))
    for place in (pairs, *(options.out / e.stage.name for e in chosen)):
        atomic.check_no_link(place)
    atomic.make_subfolder(options.out, DATA)
    dataset.write_subject(found, side=chosen[-1].stage.size)
    if options.class_prompts:
        _sample_class(cascade, dataset, options, chosen[-1].stage, choices[0].class_images)
    dataset.finish(choices[0].class_images)
    _encode(cascade, dataset, chosen, pairs)
    for experiment, choice in zip(chosen, choices, strict=True):
        _train(experiment, choice, dataset, options, pairs)
    _tell(options, chosen)


def _select(options: Options, cascade: "Imagen") -> list[config.Experiment]:
    """The experiments of the stages to fine-tune. Errors: ValueError for a stage that is none."""
    names = [experiment.stage.name for experiment in cascade.experiments]
    for name in options.stages:
        if name not in names:
            raise ValueError(f"--stages {config.shorten(name)}: no such stage; there are {names}")
    return [e for e in cascade.experiments if not options.stages or e.stage.name in options.stages]


def _choose(options: Options, chosen: Sequence[config.Experiment], images: int) -> "list[Choices]":
    from imagen_jax import finetune

    names = ("learning_rate", "class_images")
    given = {name: value for name in names if (value := getattr(options, name))}
    chosen_for = functools.partial(
        finetune.choose,
        images,
        rank=options.lora_rank,
        steps=options.steps,
        class_prompts=len(options.class_prompts),
    )
    return [dataclasses.replace(chosen_for(batch_size=e.train.batch_size), **given) for e in chosen]


def _sample_class(
    cascade: "Imagen",
    dataset: "SubjectDataset",
    options: Options,
    stage: config.Stage,
    count: int,
) -> None:
    """Sample the class's images that are not there yet, and keep each batch at once."""
    from imagen_jax.data.images import transforms
    from imagen_jax.finetune import subject

    missing = dataset.missing_class_images(count, side=stage.size)
    if missing:
        print(f"sampling {len(missing):,} images of the class", flush=True)
    for first, size in subject.chunks(missing, SAMPLED):
        sampled = cascade.sample(
            [dataset.class_prompt(first + n) for n in range(size)],
            seed=options.seed,
            batch_size=SAMPLED,
            first_index=first,
            last_stage=stage.name,
        )
        for number, image in enumerate(sampled[stage.name], first):
            dataset.write_class_image(number, transforms.encode(image))


def _encode(
    cascade: "Imagen",
    dataset: "SubjectDataset",
    chosen: Sequence[config.Experiment],
    folder: Path,
) -> None:
    """Encode the captions, unless these very pairs are there."""
    from imagen_jax.data.prepare import jobs
    from imagen_jax.data.sources import addresses
    from imagen_jax.text.offloaded import OffloadedTextEncoder

    if not isinstance(cascade.encoder, OffloadedTextEncoder):
        cascade.encoder.encode([])  # says what is missing
        raise AssertionError("a cascade that is loaded with offload has no other encoder")
    jobs.prepare_dataset(
        jobs.EncodeJob(
            address=addresses.parse_address(dataset.address),
            data_dir=folder.parent / DATA,
            text=cascade.encoder.text,
            sizes=tuple(sorted({e.stage.size for e in chosen})),
            folder=folder,
            framing=config.Framing(),
        )
    )


def _train(
    experiment: config.Experiment,
    choices: "Choices",
    dataset: "SubjectDataset",
    options: Options,
    pairs: Path,
) -> None:
    from imagen_jax import finetune
    from imagen_jax.cli import train

    stage = experiment.stage.name
    data = dataclasses.replace(experiment.data, dataset=dataset.address, split="train")
    wanted = finetune.adapt(experiment, choices, data=data, base=options.cascade)
    wanted = dataclasses.replace(wanted, train=dataclasses.replace(wanted.train, seed=options.seed))
    train.train_stage(
        wanted,
        options.out / stage,
        train.Options(
            workdir=str(options.out),
            pairs=str(pairs),
            init_from=options.cascade,
        ),
        name="",
    )


def _tell(options: Options, chosen: Sequence[config.Experiment]) -> None:
    """Print the command that samples the subject."""
    prompt = json.dumps(options.prompt)
    runs = " ".join(str(options.out / e.stage.name) for e in chosen)
    if options.lora_rank:
        print(f"imagen sample {options.cascade} {prompt} --lora {runs}")
    else:
        print(f"fine-tuned: {runs}; export them with the other stages of {options.cascade}")
