"""Writes the pages of `reference/` from the code: commands, configs and the Python API."""

import contextlib
import io
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config_page import config_page

from imagen_jax import cli

WIDTH = 88  # columns of a help text

# A page of the API: its title, and the modules on it.
API = {
    "imagen_jax": ["imagen_jax"],
    "config": ["imagen_jax.config"],
    "types": ["imagen_jax.types"],
    "diffusion": [
        "imagen_jax.diffusion",
        "imagen_jax.diffusion.schedules",
        "imagen_jax.diffusion.prediction",
        "imagen_jax.diffusion.preconditioning",
        "imagen_jax.diffusion.loss",
        "imagen_jax.diffusion.guidance",
        "imagen_jax.diffusion.thresholding",
        "imagen_jax.diffusion.noise_conditioning",
        "imagen_jax.diffusion.spacing",
        "imagen_jax.diffusion.samplers",
        "imagen_jax.diffusion.sampling_loop",
    ],
    "models": [
        "imagen_jax.models",
        "imagen_jax.models.conditioning",
        "imagen_jax.models.unet",
        "imagen_jax.models.efficient_unet",
        "imagen_jax.models.layers",
        "imagen_jax.models.attention",
        "imagen_jax.models.resampling",
    ],
    "sample": [
        "imagen_jax.sample",
        "imagen_jax.sample.request",
        "imagen_jax.sample.progress",
        "imagen_jax.sample.denoiser",
        "imagen_jax.sample.stage_program",
        "imagen_jax.sample.sampler_inputs",
        "imagen_jax.sample.lazy_params",
        "imagen_jax.sample.noise_prediction",
        "imagen_jax.sample.cascade",
    ],
    "train": [
        "imagen_jax.train",
        "imagen_jax.train.state",
        "imagen_jax.train.optim",
        "imagen_jax.train.step",
        "imagen_jax.train.sharded_step",
        "imagen_jax.train.loop",
    ],
    "text": [
        "imagen_jax.text",
        "imagen_jax.text.encoder",
        "imagen_jax.text.encoder_folders",
        "imagen_jax.text.tokenizer",
        "imagen_jax.text.t5",
        "imagen_jax.text.t5_storage",
        "imagen_jax.text.checkpoints.load",
        "imagen_jax.data.prepare.encode",
        "imagen_jax.data.prepare.jobs",
    ],
    "data": [
        "imagen_jax.data",
        "imagen_jax.data.sources.addresses",
        "imagen_jax.data.sources.base",
        "imagen_jax.data.inspect",
        "imagen_jax.data.dataset_report",
        "imagen_jax.data.prepare.images",
        "imagen_jax.data.images.transforms",
        "imagen_jax.data.store.store",
        "imagen_jax.data.store.reader",
        "imagen_jax.data.store.fit",
        "imagen_jax.data.pipeline",
    ],
    "export": ["imagen_jax.export", "imagen_jax.export.orbax", "imagen_jax.export.saved_model"],
    "evaluate": [
        "imagen_jax.evaluate",
        "imagen_jax.evaluate.evaluate",
        "imagen_jax.evaluate.settings",
        "imagen_jax.evaluate.alignment",
        "imagen_jax.evaluate.detector",
        "imagen_jax.evaluate.frechet",
        "imagen_jax.evaluate.report",
        "imagen_jax.evaluate.prompt_file",
        "imagen_jax.evaluate.protocols",
        "imagen_jax.evaluate.benchmark",
        "imagen_jax.evaluate.preferences",
    ],
    "metrics": [
        "imagen_jax.metrics",
        "imagen_jax.metrics.frechet",
        "imagen_jax.metrics.cmmd",
        "imagen_jax.metrics.precision_recall",
        "imagen_jax.metrics.inception",
        "imagen_jax.metrics.clip",
        "imagen_jax.metrics.clip_tokenizer",
    ],
    "plan": [
        "imagen_jax.plan",
        "imagen_jax.plan.topology",
        "imagen_jax.plan.compile",
        "imagen_jax.plan.roofline",
        "imagen_jax.plan.max_batch",
    ],
}


def api_page(name: str, modules: list[str]) -> str:
    """What autodoc finds in these modules; a first one that is a package has only its docstring."""
    lines = [f"# `{modules[0]}`", ""]
    for module in modules:
        if module != modules[0]:
            lines += [f"## `{module}`", ""]
        lines += ["```{eval-rst}", f".. automodule:: {module}", "   :members:"]
        lines += ["   :special-members: __call__", "   :show-inheritance:", "```", ""]
    return "\n".join(lines)


def api_index() -> str:
    """The list of those pages."""
    packages = [f"   {modules[0]}" for modules in API.values()]
    table = ["```{eval-rst}", ".. autosummary::", "", *packages, "```"]
    pages = ["```{toctree}", ":hidden:", "", *API, "```"]
    return "\n".join(["# Python API", "", *table, "", *pages, ""])


def cli_page() -> str:
    """The help text of every command, as it prints it."""
    lines = ["# Command line", "", *_block(_help([]))]
    for command in cli.COMMANDS:
        said = _help([command])
        lines += [f"## `imagen {command}`", "", *_block(said)]
        parts = {name: _help([command, name]) for name in _subcommands(command, said)}
        for name, part in parts.items():
            if part != said:
                lines += [f"### `imagen {command} {name}`", "", *_block(part)]
    return "\n".join(lines)


def _subcommands(command: str, said: str) -> Iterator[str]:
    """Those that its usage names: `imagen data {build,show}`, or a line each."""
    usage = said.partition("\n\n")[0]
    if choices := re.search(r"\{([\w,]+)\}\s*$", usage):
        yield from choices[1].split(",")
    yield from dict.fromkeys(re.findall(rf"imagen {command} ([a-z]+) ", usage))


def _help(words: list[str]) -> str:
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(printed):
        try:
            cli._main([*words, "--help"])
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"imagen {' '.join(words)} --help: exit {stop.code}") from stop
    printed.seek(0)
    return printed.read()


def _block(text: str) -> list[str]:
    """As it is printed, but paragraphs with a line that is too wide are wrapped again."""
    paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
    filled = [
        textwrap.fill(part, WIDTH) if max(map(len, part.splitlines())) > WIDTH else part
        for part in paragraphs
    ]
    return ["```text", "\n\n".join(filled), "```", ""]


def write(app: Any) -> None:
    """All pages, each only where it has changed, so that a second build is short."""
    folder = Path(app.srcdir) / "reference"
    os.environ["COLUMNS"] = str(WIDTH)
    pages = {"cli": cli_page(), "config": config_page(), "api/index": api_index()}
    pages |= {f"api/{name}": api_page(name, modules) for name, modules in API.items()}
    for old in (folder / "api").glob("*.md"):
        if f"api/{old.stem}" not in pages:
            old.unlink()
    for name, text in pages.items():
        file = folder / f"{name}.md"
        file.parent.mkdir(exist_ok=True)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
