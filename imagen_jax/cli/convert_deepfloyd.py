"""`imagen convert deepfloyd STAGE_I [STAGE_II] --out FOLDER`: DeepFloyd IF as a bundle."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from imagen_jax import config
from imagen_jax.cli import parsing
from imagen_jax.config.models import Dtype

USAGE = """Write DeepFloyd IF, in diffusers' folders, into one folder that samples as any cascade.

Weights keep the dtypes that they have. They are read, digested and written one after another:
memory holds no more than the largest of them, twice. The folder appears complete or not at all.

Folders as the hub has them: unet/, scheduler/ and, once, text_encoder/ and tokenizer/.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `imagen convert deepfloyd`."""

    stages: tyro.conf.Positional[tuple[Path, ...]]
    """STAGE_I [STAGE_II]: the folder of each pipeline, or one that holds both."""
    out: Path
    """Folder to make; it must not exist."""
    text_encoder: str = ""
    """Place of the text encoder, any checkpoint; default: `text_encoder` in a stage's folder."""
    text: Literal["embedded", "reference", "none"] = "embedded"
    """The text encoder: in the folder, by its place and a digest, or left out."""
    text_dtype: Dtype = "float32"
    """Precision that it computes in, and of its stored matrices: bfloat16 takes half the bytes."""


def run(argv: list[str]) -> None:
    """Parse, inspect, write, and say what is there."""
    options = parsing.parse(Options, argv, prog="imagen convert deepfloyd", description=USAGE)
    from imagen_jax.export import LICENCES
    from imagen_jax.io import atomic
    from imagen_jax.pretrained.deepfloyd import convert, load
    from imagen_jax.runtime import preemption

    config.require(bool(options.stages), "give STAGE_I [STAGE_II], the folder of each pipeline")
    stopped = f"stopped before the end: nothing is in {options.out}; give the same command again"
    with preemption.watch_for_preemption(at_once=stopped):
        atomic.check_new(options.out)
        pipelines = convert.open_folders(options.stages)
        text = _text(options, load.find_text(pipelines, given=options.text_encoder))
        print(LICENCES[load.DATASET], flush=True)
        document = convert.write_bundle(options.out, pipelines, kind=options.text, text=text)
    for name, facts in document["stages"].items():
        print(f"{name}: {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:,.1f} MB")
    words = document["text"]
    print(f"text encoder: {words['encoder']}, {words['kind']}")
    if text is None:
        print("none is in these folders: sample with --text-encoder FOLDER")
    size = sum(entry["bytes"] for entry in document["files"].values())
    print(f"the cascade is in {options.out}, {size / 1e6:,.1f} MB in {document['dtype']}")


def _text(options: Options, found: config.Text | None) -> config.Text | None:
    """The text encoder in its dtype. Errors: ValueError for options that would do nothing."""
    if options.text == "none":
        config.require(not options.text_encoder, "--text none: leave out --text-encoder")
    if found is None:
        config.require(
            options.text_dtype == "float32",
            "--text-dtype: there is no text encoder; give its folder as --text-encoder",
        )
        return None
    from imagen_jax.text.encoder_folders import EMBEDDED

    where = found.encoder
    if options.text == "reference" and where not in EMBEDDED and Path(where).exists():
        where = str(Path(where).absolute())  # the bundle is read from elsewhere
    return dataclasses.replace(found, encoder=where, dtype=options.text_dtype)
