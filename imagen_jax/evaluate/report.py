"""One page of scores, plots and sample grids: index.html, report.md and scores.json."""

import dataclasses
import html
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from imagen_jax import extras
from imagen_jax.io.atomic import write_atomic

FILES = ("index.html", "report.md", "scores.json")  # of a report, besides its plots
Scores = Mapping[str, tuple[float, int]]  # attribute -> (share right, how many stated it)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: the judged images, and their scores."""

    name: str
    scores: Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a sentence, perhaps a table, perhaps an image (a file beside the page)."""

    title: str
    text: str = ""
    rows: tuple[Row, ...] = ()
    image: str | None = None
    draw: Callable[[Path], None] | None = None  # writes the image to a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """An evaluation: `to_markdown()` shows it, `write(folder)` writes the page with its images."""

    title: str
    sections: tuple[Section, ...]

    def scores(self) -> dict[str, dict[str, Scores]]:
        """Return the scores by title of the section and name of the row."""
        return {s.title: {row.name: row.scores for row in s.rows} for s in self.sections if s.rows}

    def to_markdown(self) -> str:
        """Return the page as Markdown; images are links to the files that `write` writes."""
        return _markdown(self.title, self.sections)

    def write(self, folder: Path) -> Path:
        """Write index.html, report.md, scores.json and the images; returns index.html.

        Errors: ValueError without the extra `plots`.
        """
        extras.require("matplotlib", "the plots of a report need")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as drawn:  # whose files are named as they will be
            for section in self.sections:
                if section.image is not None and section.draw is not None:
                    section.draw(image := Path(drawn) / section.image)
                    write_atomic(folder / section.image, image.read_bytes())
        page, markdown, scores = (folder / name for name in FILES)
        write_atomic(scores, json.dumps(self.scores(), indent=2))
        write_atomic(markdown, self.to_markdown())
        write_atomic(page, _html(self.title, self.sections))
        return page

    def _repr_markdown_(self) -> str:  # Jupyter shows it
        return self.to_markdown()


def attribute_rows(rows: Sequence[Row]) -> list[str]:
    """Return every attribute that some row could judge, in order of appearance."""
    names = dict.fromkeys(name for row in rows for name in row.scores)
    return [n for n in names if any(row.scores.get(n, (0.0, 0))[1] for row in rows)]


def markdown_table(rows: Sequence[Row]) -> str:
    """Return scores in percent as a Markdown table; a dash where nothing could be judged."""
    columns = attribute_rows(rows)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += ["| " + " | ".join([row.name, *_cells(row, columns)]) + " |" for row in rows]
    return "\n".join(lines)


def plot_losses(runs: Mapping[str, Sequence[tuple[int, float]]], file: Path) -> None:
    """Plot loss against step, one panel per stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(runs), 3), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    for axis, (name, points) in zip(axes, runs.items(), strict=True):
        axis.plot([p[0] for p in points], [p[1] for p in points])
        axis.set(title=name, xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def plot_sweep(sweep: Mapping[float, Scores], file: Path, *, label: str) -> None:
    """Plot scores against `label` (the guidance weight, say), one line per attribute."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for name in attribute_rows([Row(name=str(w), scores=s) for w, s in sweep.items()]):
        axis.plot(list(sweep), [s[name][0] for s in sweep.values()], "o-", label=name)
    axis.set(xlabel=label, ylabel="share right", ylim=(0, 1.02))
    axis.legend(fontsize=7, ncols=2)
    axis.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    found = [row.scores.get(c, (0.0, 0)) for c in columns]
    return [f"{100 * share:.0f}" if count else "-" for share, count in found]


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}"]
    for s in sections:
        parts += [f"## {s.title}", s.text]
        parts += [markdown_table(s.rows)] if s.rows else []
        parts += [f"![{s.title}]({s.image})"] if s.image else []
    return "\n\n".join(p for p in parts if p) + "\n"


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2rem .6rem;text-align:right}
td:first-child{text-align:left}img{max-width:100%}"""


def _html(title: str, sections: Sequence[Section]) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for s in sections:
        parts.append(f"<h2>{html.escape(s.title)}</h2><p>{html.escape(s.text)}</p>")
        if s.rows:
            columns = attribute_rows(s.rows)
            head = "".join(f"<th>{html.escape(c)}</th>" for c in ["", *columns])
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
                for cells in ([row.name, *_cells(row, columns)] for row in s.rows)
            )
            parts.append(f"<table><tr>{head}</tr>{body}</table>")
        if s.image:
            parts.append(f'<p><img src="{html.escape(s.image)}" alt="{html.escape(s.title)}"></p>')
    return (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style>" + "\n".join(parts)
    )
