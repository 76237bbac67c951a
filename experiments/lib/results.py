"""An experiment's results on disk: OUT/NAME.png, OUT/NAME.json, and OUT/NAME.md with its command.

The numbers are written after every run, so that an interrupted experiment keeps what is done.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from imagen_jax import config
from imagen_jax.io.atomic import write_atomic
from lib import runs

DPI = 110
RENAMED = {"pictures": "images", "until": "last_stage", "pictures_seen": "images_seen"}  # old keys


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """Content of a page: heading, one sentence on how it was made, table and plot."""

    title: str
    text: str
    rows: Sequence[Mapping[str, str]]  # lines of the table, all with the same columns
    figure: Figure


def write_page(out: Path, name: str, page: Page, *, made_by: str) -> None:
    """Write plot and page, print the table and where the files are."""
    out.mkdir(parents=True, exist_ok=True)
    page.figure.savefig(out / f"{name}.png", dpi=DPI)
    shown = markdown_table(page.rows)
    device = jax.devices()[0].device_kind
    (out / f"{name}.md").write_text(
        f"# {page.title}\n\n{page.text}\n\nMade by `{made_by}` on {device}.\n\n"
        f"{shown}\n\n![{page.title}]({name}.png)\n"
    )
    print(f"\n{shown}\n\n{name}: {out}/{name}.md, .png and .json")


def collect_settings(
    options: Any, experiment: config.Experiment, *, leave_out: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what results depend on: options except folders and `leave_out`, and the experiment."""
    chosen = {
        name: value
        for name, value in vars(options).items()
        if not isinstance(value, Path) and name not in leave_out
    }
    return json.loads(json.dumps(chosen | runs.fields(experiment)))


def read_results(out: Path, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of earlier runs by their names, empty at first; old keys are read, too.

    Errors: ValueError for results of other settings, which it names.
    """
    file = out / f"{name}.json"
    if not file.is_file():
        return {}
    document = json.loads(file.read_text(), object_hook=_with_new_keys)
    before = document["settings"]
    differing = [
        f"{key}={before.get(key)!r} there, {settings.get(key)!r} here"
        for key in {**before, **settings}
        if before.get(key) != settings.get(key)
    ]
    if differing:
        raise ValueError(
            f"{file} was made with other settings ({'; '.join(differing)}); give another --out, or "
            "delete it"
        )
    return document["results"]


def write_results(
    out: Path, name: str, settings: Mapping[str, Any], results: Mapping[str, Any]
) -> None:
    """Write the results so far, with the settings that `read_results` compares."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"settings": settings, "results": results}, indent=2) + "\n"
    write_atomic(out / f"{name}.json", text)


def _with_new_keys(document: dict[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(key, key): value for key, value in document.items()}


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the rows as a Markdown table."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[c] for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def shell_command(name: str, options: Any) -> str:
    """Return the command of an experiment with some options.

    Defaults and the folders of data and runs are left out: no result depends on the latter.
    """
    words = ["python", f"experiments/{name}.py"]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in ("data_dir", "workdir"):
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)
