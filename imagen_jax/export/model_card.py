"""The card of a bundle: a README.md, to be completed by hand."""

from collections.abc import Mapping
from typing import Any

_HEAD = """# {name}

{written}
config; `manifest.json` has the size and SHA-256 of every file. Nothing here executes code.

| stage | parameters | step | bytes | deviation of weights | of the network |
|---|---|---|---|---|---|"""
_EXPORTED = (
    "An Imagen cascade, written by `imagen export`: each stage's averaged weights in {dtype} and "
    "resolved"
)
_CONVERTED = (
    "A cascade, written by `{command}`: each stage's weights in {dtype}, as they were stored, and "
    "resolved"
)
_TAIL = """
Deviations are root mean square errors, relative to the weights that were exported, and to what
their network makes of fixed random inputs.

Text encoder: `{encoder}`, {kind}. Trained on: `{dataset}`.

Sample with `imagen sample FOLDER "..."`, or `imagen_jax.load(FOLDER)` in Python{programs}.
"""
_KINDS = {
    "embedded": "in `text/`",
    "reference": "which is not here: it has to be where that says",
    "none": "which is not here: give it as `imagen_jax.load(FOLDER, text_encoder=...)`",
}


def model_card(name: str, manifest: Mapping[str, Any]) -> str:
    """In Markdown."""
    rows = [
        f"| `{stage}` | {facts['parameters']:,} | {facts['step']:,} | {facts['bytes']:,} | "
        f"{facts['deviation']['weights']:.2%} | {facts['deviation']['network']:.2%} |"
        for stage, facts in manifest["stages"].items()
    ]
    words = manifest["text"]
    has_programs = any("program" in facts for facts in manifest["stages"].values())
    tail = _TAIL.format(
        encoder=words["encoder"],
        kind=_KINDS[words["kind"]],
        dataset=manifest["dataset"],
        programs="; without the package by its\n`*.stablehlo`" if has_programs else "",
    )
    command = manifest.get("command")
    written = (_CONVERTED if command else _EXPORTED).format(
        command=command, dtype=manifest["dtype"]
    )
    licence = [f"## Licence\n\n{manifest['licence']}\n"] if "licence" in manifest else []
    return "\n".join([_HEAD.format(name=name, written=written), *rows, tail, *licence])
