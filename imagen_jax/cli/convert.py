"""`imagen convert SUBJECT ... --out FOLDER`: other projects' checkpoints in our own form."""

import dataclasses
import importlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from imagen_jax.cli import parsing
from imagen_jax.config.models import Dtype

if TYPE_CHECKING:
    from imagen_jax.text.tokenizer import Tokenizer

USAGE = """Write a T5 encoder, read from any checkpoint, into one folder of our own form.

The folder holds the weights as safetensors, the tokenizer and a description. It is given to
text.encoder, or to TextEncoder.load, as any checkpoint's. It appears complete or not at all, and
takes little more memory than the largest stored tensor.

Cached encodings are known by the folder's name and the encoder's identity. In float32 that is the
original's. In bfloat16 matrices are rounded: half the bytes and an identity of its own, but what a
text.dtype of bfloat16 computes stays the same to the last bit.
"""

# Other subjects, each in a module `convert_SUBJECT` with a function `run`.
OTHERS = {
    "deepfloyd": "STAGE_I [STAGE_II] --out FOLDER: DeepFloyd IF's folders, to a cascade",
    "inception": "FILE --out FILE: FID's Inception-v3, to one safetensors file",
}
SUBJECTS = (
    "text PATH --out FOLDER: a T5 encoder, to one folder",
    *(f"{name} {summary}" for name, summary in OTHERS.items()),
)
HELP = "\n".join(
    [
        f"usage: imagen convert {{{','.join(('text', *OTHERS))}}}",
        "",
        "Other projects' weights in our own form. `imagen convert SUBJECT --help` tells more.",
        "",
        *(f"  {summary}" for summary in SUBJECTS),
        "",
        "What is written appears complete or not at all, with digests of its parts. Tensors are",
        "read and written one after another: memory need not hold all of them. No pickle is run.",
    ]
)


@dataclasses.dataclass(frozen=True)
class Options:
    """The encoder to convert."""

    path: tyro.conf.Positional[str]
    """Checkpoint: T5X's, local or gs://; Hugging Face's folder or a safetensors file of it; or an
    embedded encoder's name."""
    out: Path
    """Folder to make; it must not exist."""
    dtype: Dtype = "float32"
    """Precision of the stored matrices; vectors are float32."""
    tokenizer: str = ""
    """The encoder's SentencePiece FILE.model, local or gs://; default: the only one in PATH or,
    unless that is gs://, next to it."""


def run(argv: list[str]) -> None:
    """Parse and do. Errors: ValueError for a subject that can't be converted."""
    subject, *rest = argv or [""]
    if subject in ("-h", "--help"):
        print(HELP)
    elif subject == "text":
        convert_text(parsing.parse(Options, rest, prog="imagen convert text", description=USAGE))
    elif subject in OTHERS:
        importlib.import_module(f"imagen_jax.cli.convert_{subject}").run(rest)
    else:
        there = ", ".join(f"`imagen convert {summary.split(':')[0]}`" for summary in SUBJECTS)
        raise ValueError(f"cannot convert {subject!r}; there is {there}")


def convert_text(options: Options) -> None:
    """Inspect, write, and say what is there."""
    from imagen_jax.text import t5
    from imagen_jax.text.checkpoints import huggingface, huggingface_files, load, native

    path, tokenizer = _source(options)
    sizes, layout = load.find_layout(path)
    native.write(options.out, sizes, layout, tokenizer=tokenizer, dtype=options.dtype)
    count = sum(math.prod(shape) for shape in t5.parameter_shapes(sizes).values())
    print(f"{count:,} parameters: {', '.join(f'{k} {v}' for k, v in vars(sizes).items())}")
    if huggingface_files.is_huggingface(Path(path)) and (
        others := huggingface.unused_tensors(Path(path))
    ):
        names = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        print(f"{len(others):,} tensors that are no encoder's were left out: {names}")
    files = sorted(options.out.iterdir())
    for file in files:
        print(f"{file.name}: {file.stat().st_size:,} bytes")
    total = sum(file.stat().st_size for file in files)
    print(f"the encoder is in {options.out}, {total / 1e6:.1f} MB in {options.dtype}")


def _source(options: Options) -> "tuple[str, Tokenizer]":
    """The checkpoint's path and its tokenizer.

    Errors: FileNotFoundError or ValueError where either is not to be found.
    """
    from imagen_jax.io import buckets
    from imagen_jax.text import encoder_folders
    from imagen_jax.text.tokenizer import Tokenizer

    path = encoder_folders.locate_encoder(options.path)
    if not buckets.is_bucket(path) and not Path(path).exists():
        raise FileNotFoundError(
            f"no text encoder {options.path!r}: it is neither a checkpoint's folder or file, nor "
            f"gs://, nor embedded ({', '.join(encoder_folders.EMBEDDED)})"
        )
    try:
        return path, Tokenizer.load(options.tokenizer or encoder_folders.find_tokenizer(path))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{error}; --tokenizer FILE.model names another") from error
