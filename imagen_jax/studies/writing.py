"""A study on disk: OUT/<study>.png, OUT/<study>.md with the command that made it, OUT/<study>.json.

The numbers are written after every sub-run, so that an interrupted study keeps what is done.
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
from imagen_jax.studies import training

DPI = 110


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """What a study shows: a heading, one sentence on how it was made, a table and a plot."""

    title: str
    text: str
    rows: Sequence[Mapping[str, str]]  # each a line of the table, all with the same columns
    figure: Figure


def write(out: Path, study: str, page: Page, *, made_by: str) -> None:
    """Write plot and page, print the table, say where things are."""
    out.mkdir(parents=True, exist_ok=True)
    page.figure.savefig(out / f"{study}.png", dpi=DPI)
    shown = table(page.rows)
    device = jax.devices()[0].device_kind
    (out / f"{study}.md").write_text(
        f"# {page.title}\n\n{page.text}\n\nMade by `{made_by}` on {device}.\n\n"
        f"{shown}\n\n![{page.title}]({study}.png)\n"
    )
    print(f"\n{shown}\n\n{study}: {out}/{study}.md, .png and .json")


def settings(
    options: Any, experiment: config.Experiment, *, leave_out: Sequence[str] = ()
) -> dict[str, Any]:
    """What results depend on: the options but for folders and `leave_out`, and the experiment."""
    chosen = {
        name: value
        for name, value in vars(options).items()
        if not isinstance(value, Path) and name not in leave_out
    }
    return json.loads(json.dumps(chosen | training.fields(experiment)))


def read(out: Path, study: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What earlier runs of a study found, by name; nothing at first.

    Errors: ValueError when it was found with other settings, naming them.
    """
    file = out / f"{study}.json"
    if not file.is_file():
        return {}
    document = json.loads(file.read_text())
    before = document["settings"]
    differing = [
        f"{name}={before.get(name)!r} there, {settings.get(name)!r} here"
        for name in {**before, **settings}
        if before.get(name) != settings.get(name)
    ]
    if differing:
        raise ValueError(
            f"{file} was made with other settings ({'; '.join(differing)}); give another --out, or "
            "delete it"
        )
    return document["results"]


def keep(out: Path, study: str, settings: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Store what was found so far, with the settings that `read` compares."""
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f"{study}.json.tmp"
    temporary.write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")
    temporary.replace(out / f"{study}.json")


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[c] for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def command(study: str, options: Any) -> str:
    """The `imagen study` command of some options, without defaults and folders of work in progress.

    Nothing that is found depends on where data and runs lie.
    """
    words = ["imagen", "study", study]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in ("data_dir", "workdir"):
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)
