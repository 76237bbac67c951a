"""The page of a scored cascade, which needs no other file, and the document of it."""

import base64
import html
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagen_jax.evaluate.benchmark import Result
from imagen_jax.evaluate.report import STYLE
from imagen_jax.io import image_grid
from imagen_jax.io.atomic import write_atomic

PAGE, DOCUMENT = "index.html", "report.json"
FILES = (PAGE, DOCUMENT)
ALIGNED = ("clip", "shapes", "retrieval")  # metrics of alignment, the larger the better
FAITHFUL = ("fid", "cmmd")  # metrics of fidelity, the smaller the better


def write(
    folder: Path,
    title: str,
    results: Sequence[Result],
    document: Mapping[str, Any],
) -> Path:
    """Write page and document; the images that the document shows stand on the page.

    Returns the page. Errors: OSError.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", numbers_table(results)]
    parts += [f"<p>{html.escape(note)}.</p>" for note in _notes(results)]
    if len(results) > 1:
        parts += ["<h2>Curves</h2>", _embed(draw_curves(results), "metrics by guidance weight")]
    for result in results:
        if result.by_category:
            parts += [f"<h2>By category{_of(result)}</h2>", _category_table(result)]
    shown = document["prompts"]["shown"]
    captions = [entry["prompt"] or "(no text)" for entry in shown]
    for result in results:
        images = [np.asarray(Image.open(result.folder / entry["file"])) for entry in shown]
        grid = image_grid.draw_grid(images, captions)
        parts += [f"<h2>Images{_of(result)}</h2>", _embed(grid, "images")]
    text = json.dumps(document, indent=2, ensure_ascii=False)
    parts += ["<h2>What was computed</h2>", f"<pre>{html.escape(text)}</pre>"]
    write_atomic(folder / DOCUMENT, text.encode("utf-8", "backslashreplace") + b"\n")
    write_atomic(folder / PAGE, html_page(title, parts).encode("utf-8", "backslashreplace"))
    return folder / PAGE


def html_page(title: str, parts: Sequence[str]) -> str:
    """A whole page of parts that are HTML already."""
    style = STYLE + "td:first-child{white-space:nowrap}pre{white-space:pre-wrap;font-size:12px}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style>" + "\n".join(parts) + "</html>\n"
    )


def numbers_table(results: Sequence[Result]) -> str:
    """A line for each setting and a column for each number."""
    columns = list(dict.fromkeys(itertools.chain(*(result.numbers for result in results))))
    return _table(["", *columns], [_line(r.name, r.numbers, columns) for r in results])


def draw_curves(results: Sequence[Result]) -> Image.Image:
    """Draw fidelity against alignment where both are known, and each metric against the weight."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(itertools.chain(*(result.numbers for result in results))))
    pairs = [(x, y) for x in ALIGNED if x in names for y in FAITHFUL if y in names]
    panels = [*pairs, *(("guidance weight", name) for name in names)]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (x, y) in zip(axes, panels, strict=False):
        points = [(_number(r, x), _number(r, y), r.weight) for r in results]
        axis.plot([p[0] for p in points], [p[1] for p in points], "o-", ms=4)
        if x != "guidance weight":
            for across, up, weight in points:
                axis.annotate(f"{weight:g}", (across, up), (3, 3), textcoords="offset points")
        axis.set(xlabel=x, ylabel=y)
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    return Image.open(drawn)


def _number(result: Result, name: str) -> float:
    if name == "guidance weight":
        return float("nan") if result.weight is None else result.weight
    return result.numbers.get(name, float("nan"))


def _notes(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(note for result in results for note in result.warnings))


def _of(result: Result) -> str:
    return "" if result.weight is None else html.escape(f": {result.name}")


def _category_table(result: Result) -> str:
    columns = list(dict.fromkeys(itertools.chain(*result.by_category.values())))
    lines = [_line(name, numbers, columns) for name, numbers in result.by_category.items()]
    return _table(["", *columns], lines)


def _line(name: str, numbers: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [name, *(f"{numbers[c]:.5g}" if c in numbers else "-" for c in columns)]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(line, 'td') for line in lines)}</table>"


def _embed(image: Image.Image, alt: str) -> str:
    """An image inside the page."""
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    text = base64.b64encode(encoded.getvalue()).decode()
    return f'<p><img alt="{html.escape(alt)}" src="data:image/png;base64,{text}"></p>'
