"""`imagen convert inception FILE --out FILE`: FID's Inception-v3 as safetensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from imagen_jax.cli import parsing

USAGE = """Write FID's Inception-v3, read from PyTorch's file, as one safetensors file.

The file is read without running the pickle in it. Tensors keep their names; the metadata holds the
SHA-256 of PyTorch's file, so that scores with either file say that they are of the same weights.
"""


@dataclasses.dataclass(frozen=True)
class InceptionOptions:
    """The weights to convert."""

    path: tyro.conf.Positional[Path]
    """pt_inception-2015-12-05-6726825d.pth, of pytorch-fid or torch-fidelity."""
    out: Path
    """The .safetensors file to write; it must not exist."""


def run(argv: list[str]) -> None:
    """Parse, convert, and say what is there."""
    options = parsing.parse(
        InceptionOptions, argv, prog="imagen convert inception", description=USAGE
    )
    from imagen_jax.metrics import inception_weights

    count = inception_weights.convert(options.path, options.out)
    found = inception_weights.load(options.out)
    published = "the published weights" if found.published else "not the published weights"
    print(
        f"{count:,} numbers, {published} (SHA-256 {found.source_sha256}), are in {options.out}, "
        f"{options.out.stat().st_size / 1e6:.1f} MB"
    )
